package metrics

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

// without returns the page without what the process is.
func without(p *Page) string {
	var lines []string
	for line := range strings.Lines(p.String()) {
		if strings.Contains(line, "netport_relay_test") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestPageIsTextOfPrometheus(t *testing.T) {
	p := NewPage("relay", "1.2.3", time.Unix(1700000000, 0))
	drops := p.Counter("test_drops_total", "Packets that were not carried.\nSee the \\ manual.")
	drops.Add(math.MaxUint64, "reason", "tls", "plane", "kernel")
	drops.Add(2, "reason", "limit", "plane", "kernel")
	drops.Add(3, "reason", "limit", "plane", "kernel")
	p.Gauge("test_none", "Nothing.")
	p.Gauge("test_until_seconds", "An end.").Time(time.UnixMilli(1700000000250))
	p.Gauge("test_until_seconds", "An end.").Time(time.Time{}, "ca", "none")
	p.Gauge("test_connected", "Whether.").Is(true)
	p.Counter("test_stalled_seconds_total", "Time.").Seconds(1500 * time.Millisecond)
	h := NewHistogram(time.Millisecond, time.Second)
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Minute} {
		h.Observe(d)
	}
	p.Histogram("test_commit_seconds", "Times.", h.Snapshot())
	want := `# HELP netport_relay_test_commit_seconds Times.
# TYPE netport_relay_test_commit_seconds histogram
netport_relay_test_commit_seconds_bucket{le="0.001"} 2
netport_relay_test_commit_seconds_bucket{le="1"} 3
netport_relay_test_commit_seconds_bucket{le="+Inf"} 4
netport_relay_test_commit_seconds_sum 60.002000001
netport_relay_test_commit_seconds_count 4
# HELP netport_relay_test_connected Whether.
# TYPE netport_relay_test_connected gauge
netport_relay_test_connected 1
# HELP netport_relay_test_drops_total Packets that were not carried.\nSee the \\ manual.
# TYPE netport_relay_test_drops_total counter
netport_relay_test_drops_total{reason="limit",plane="kernel"} 5
netport_relay_test_drops_total{reason="tls",plane="kernel"} 18446744073709551615
# HELP netport_relay_test_none Nothing.
# TYPE netport_relay_test_none gauge
# HELP netport_relay_test_stalled_seconds_total Time.
# TYPE netport_relay_test_stalled_seconds_total counter
netport_relay_test_stalled_seconds_total 1.5
# HELP netport_relay_test_until_seconds An end.
# TYPE netport_relay_test_until_seconds gauge
netport_relay_test_until_seconds 1.70000000025e+09
`
	if got := without(p); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if all := p.String(); !strings.Contains(all, `netport_build_info{role="relay",version="1.2.3"} 1`+"\n") || !strings.Contains(all, "netport_relay_start_time_seconds 1.7e+09\n") {
		t.Error(all)
	}
}

// TestLabelsCannotForgeLines has values as other machines could give them.
func TestLabelsCannotForgeLines(t *testing.T) {
	for value, want := range map[string]string{
		"a\"} 1\nnetport_relay_forged 2": `a\"} 1\nnetport_relay_forged 2`,
		`back\slash`:                     `back\\slash`,
		"\xff\xfe":                       "\uFFFD",
		strings.Repeat("x", 1000):        strings.Repeat("x", maxLabel),
		strings.Repeat("é", 100) + "":    strings.Repeat("é", 64),
		"x" + strings.Repeat("é", 100):   "x" + strings.Repeat("é", 63),
		"":                               "",
	} {
		p := NewPage("relay", "", time.Time{})
		p.Gauge("test", "Help.").Set(1, "peer", value)
		want := "# HELP netport_relay_test Help.\n# TYPE netport_relay_test gauge\nnetport_relay_test{peer=\"" + want + "\"} 1\n"
		if got := without(p); got != want {
			t.Errorf("%.40q: got\n%s\nwant\n%s", value, got, want)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	p := NewPage("relay", "", time.Time{})
	f := p.Gauge("test", "Help.")
	for i := range maxSeries + 7 {
		f.Set(1, "peer", strconv.Itoa(i))
	}
	text := p.String()
	if n := strings.Count(text, "\nnetport_relay_test{"); n != maxSeries {
		t.Errorf("%d series", n)
	}
	if !strings.Contains(text, `netport_relay_metrics_left_out{family="netport_relay_test"} 7`) {
		t.Error("what is left out is not counted")
	}
	var c Counts
	for i := range maxCounts + 7 {
		c.Add(strconv.Itoa(i))
	}
	if all := c.All(); len(all) != maxCounts+1 || all[Other] != 7 {
		t.Errorf("%d names, %d others", len(all), all[Other])
	}
}

func TestHistogramAllocatesNothing(t *testing.T) {
	h := NewHistogram(time.Millisecond, time.Second)
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Minute) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestProcessKnowsItsDescriptors(t *testing.T) {
	open, limit, ok := descriptors()
	if ok && (open < 3 || open > limit) {
		t.Errorf("%d of %d", open, limit)
	}
}
