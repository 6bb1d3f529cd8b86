package conffile

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	day         = 24 * time.Hour
	maxDuration = time.Duration(1<<63 - 1)
)

// ParseDuration reads a length of time as time.ParseDuration does, or a whole
// number of days (d, 24 hours), weeks (w) or years (y, 365 days).
func ParseDuration(s string) (time.Duration, error) {
	for unit, length := range map[string]time.Duration{"d": day, "w": 7 * day, "y": 365 * day} {
		digits, ok := strings.CutSuffix(s, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			break
		}
		if n > uint64(maxDuration/length) {
			return 0, fmt.Errorf("%q is too long", s)
		}
		return time.Duration(n) * length, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no length of time: write it as \"90m\", \"12h\", \"30d\" or \"2y\"", s)
	}
	return d, nil
}

// FormatDuration writes a length of time as ParseDuration reads it.
func FormatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
