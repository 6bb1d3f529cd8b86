package joining

import (
	"regexp"
	"testing"
)

// TestDoctorNamesAWrongClock: of a machine whose clock is ten years ahead doctor says so, and still knows the right server,
// though each certificate looks as if it had ended; of one that is behind it says that the portal lives with it.
func TestDoctorNamesAWrongClock(t *testing.T) {
	m := newShiftedMachine(t, []resident{plant})
	m.running[plant.folder].stop()
	for _, c := range []struct {
		shift  int
		fails  bool
		clocks string
	}{
		{decade, true, `failed   clock: 8(7600|7599)h\S+ ahead of the server's\n +-> set it right \(NTP\): grants and certificates look as if they had ended`},
		{-2 * hour, false, `warning  clock: (2h0m0s|1h59m59s) behind the server's\n`},
		{0, false, `ok       clock: within 1s of the server's\n`},
	} {
		m.shift(plant, c.shift)
		m.environment = []string{"SHIFT_CLOCK=" + m.shiftFile(plant)}
		out, err := m.output("portal", nil, "doctor", "--wide", "--config", m.config(plant.folder))
		m.environment = nil
		for _, want := range []string{c.clocks, `ok       certificate: until `, `ok       server \S+: server, proven by its certificate`} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("clock %+d s: want %q in\n%s", c.shift, want, out)
			}
		}
		if (err != nil) != c.fails {
			t.Errorf("clock %+d s: exit %v, fails %t", c.shift, err, c.fails)
		}
	}
}
