package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestTableShowsMediansRatiosAndWhatIsMissed(t *testing.T) {
	c := comparison{quantities: []quantity{{
		what: "TCP goodput, 8 streams", unit: bitrate,
		targets: map[string]target{barePumpName: {atLeast: 0.85}, sshName: {atLeast: 4}},
	}}}
	r := &report{Kernel: "6.18.44-a-long-name-of-a-kernel", Go: "go1.26.8", Processors: 128, Congestion: "bbr", Rounds: 3, Window: 2 * time.Second}
	r.add("P5", c, []figures{
		{netportName, [][]float64{{10e9, 12e9, 11e9}}},
		{barePumpName, [][]float64{{20e9, 10e9, 22e9}}},
		{sshName, [][]float64{{1e9, 1e9, 1e9}}},
	})
	r.add("S5", comparison{mode: func() string { return "xdp" }, quantities: []quantity{{what: "memory of a session", unit: size, own: target{atMost: 400}}}},
		[]figures{{netportName, [][]float64{{390, 401, 402}}}})
	r.add("P10", comparison{quantities: []quantity{{what: "200 Mbit/s, 100 ms", unit: bitrate, own: target{atLeast: 180e6}}}},
		[]figures{{netportName, [][]float64{{190e6}}}, {sshName, [][]float64{{95e6}}}})
	got := r.table()
	for _, want := range []string{
		"P5  TCP goodput, 8 streams 11.00 Gbit/s TLS pump, no apps 20.00 Gbit/s   0.50 (0.50-1.20) >= 0.85 NO\n",
		"                                        ssh -J -L          1.00 Gbit/s     11 (10-12)     >= 4 yes\n",
		"S5  memory of a session           401 B                                       <= 400 B    NO\n",
		"      by xdp\n",
		"P10 200 Mbit/s, 100 ms       190 Mbit/s                                       >= 180 Mbit/s yes\n",
		"                                        ssh -J -L            95 Mbit/s   2.00 (2.00-2.00)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line\n%sin\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}
