package survive

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// sample is a daemon's resident memory at a time.
type sample struct {
	daemon string
	pid    int
	at     time.Time
	bytes  int64
}

// memory is what daemons took, as time passed. A daemon that was started anew has another life.
type memory struct{ samples []sample }

func (m *memory) add(s sample) { m.samples = append(m.samples, s) }

const (
	growth = 1 << 20       // most bytes an hour
	warmUp = time.Hour     // of all
	judged = 2 * time.Hour // is a run that is no shorter
)

// judge prints how fast each daemon grows, and reports which do beyond doubt.
func (m *memory) judge(t *testing.T, begun time.Time) error {
	if len(m.samples) == 0 {
		return nil
	}
	length := m.samples[len(m.samples)-1].at.Sub(begun)
	from := begun.Add(min(warmUp, length/3))
	byDaemon, names := make(map[string][]sample), []string(nil)
	for _, s := range m.samples {
		if byDaemon[s.daemon] == nil {
			names = append(names, s.daemon)
		}
		byDaemon[s.daemon] = append(byDaemon[s.daemon], s)
	}
	var text strings.Builder
	var err error
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DAEMON\tLIVES\tFIRST MiB\tMOST\tLAST\tGROWS BY MiB/h\t±")
	for _, name := range names {
		list := byDaemon[name]
		most := slices.MaxFunc(list, func(a, b sample) int { return int(a.bytes - b.bytes) }).bytes
		slope, doubt, lives := trend(list, from, min(warmUp, length/6))
		fmt.Fprintf(table, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\n", name, lives, mib(float64(list[0].bytes)), mib(float64(most)), mib(float64(list[len(list)-1].bytes)), mib(slope), mib(doubt))
		if length >= judged && slope-doubt > growth {
			err = errors.Join(err, fmt.Errorf("%s grows by %.2f MiB an hour, want 1 at most", name, mib(slope)))
		}
	}
	table.Flush()
	t.Logf("what the daemons took, from %v on:\n%s", from.Sub(begun).Round(time.Second), &text)
	return err
}

func mib(bytes float64) float64 { return bytes / (1 << 20) }

// trend is the growth in bytes an hour within the lives of a daemon, of which the beginning of each is left out, and what
// it may be off by (three standard errors): it is NaN if too little was seen.
func trend(list []sample, from time.Time, beginning time.Duration) (slope, doubt float64, lives int) {
	byLife := make(map[int][]sample)
	started := make(map[int]time.Time)
	for _, s := range list {
		if _, known := started[s.pid]; !known {
			started[s.pid] = s.at
		}
		if !s.at.Before(from) && s.at.Sub(started[s.pid]) >= beginning {
			byLife[s.pid] = append(byLife[s.pid], s)
		}
	}
	var xx, xy, yy float64
	seen := 0
	for _, life := range byLife {
		var x, y float64
		for _, s := range life {
			x += s.at.Sub(from).Hours() / float64(len(life))
			y += float64(s.bytes) / float64(len(life))
		}
		for _, s := range life {
			dx, dy := s.at.Sub(from).Hours()-x, float64(s.bytes)-y
			xx, xy, yy = xx+dx*dx, xy+dx*dy, yy+dy*dy
		}
		seen += len(life) - 1
	}
	if seen < 10 {
		return math.NaN(), math.NaN(), len(started)
	}
	slope = xy / xx
	return slope, 3 * math.Sqrt((yy-slope*xy)/float64(seen-1)/xx), len(started)
}

// The growth is found in what a daemon takes, whether it was started anew or not, and none is found where there is none.
func TestGrowthIsFound(t *testing.T) {
	begun := time.Now()
	of := func(perHour float64, restart time.Duration) (list []sample) {
		for i := range 6 * 60 * 4 {
			at := time.Duration(i) * 10 * time.Second
			noise := float64(i*7919%13-6) * 100e3
			list = append(list, sample{"relay", int(at / restart), begun.Add(at), int64(20e6 + noise + perHour*(at%restart).Hours())})
		}
		return list
	}
	for _, restart := range []time.Duration{24 * time.Hour, 50 * time.Minute} {
		for _, perHour := range []float64{0, 3 << 20} {
			slope, doubt, _ := trend(of(perHour, restart), begun.Add(time.Hour), 5*time.Minute)
			if math.Abs(slope-perHour) > doubt || doubt > growth {
				t.Errorf("a daemon that is started anew every %v and grows by %.0f bytes an hour seems to grow by %.0f, at most %.0f more or less", restart, perHour, slope, doubt)
			}
		}
	}
	few := memory{samples: of(3<<20, 24*time.Hour)}
	if err := few.judge(t, begun); err == nil || !strings.Contains(err.Error(), "relay grows by 3.0") {
		t.Errorf("it says %v", err)
	}
}
