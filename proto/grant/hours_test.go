package grant

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

const everyDay = 0x7f

func manyWindows() (list []Window) {
	for i := range MaxWindows {
		list = append(list, Window{everyDay, uint16(20 * i), uint16(20*i + 10)})
	}
	return list
}

// zones are rules as the footers of TZif files have them.
var zones = map[string]string{
	"UTC":                 "UTC0",
	"Europe/Berlin":       berlin,
	"America/New_York":    "EST5EDT,M3.2.0,M11.1.0",
	"Australia/Lord_Howe": "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",         // half an hour, southern summer
	"Europe/Dublin":       "IST-1GMT0,M10.5.0,M3.5.0/1",                   // its winter is the exception
	"Asia/Kathmandu":      "<+0545>-5:45",                                 // no round hour
	"America/Nuuk":        "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",              // on Saturday evening
	"Pacific/Chatham":     "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45", // quarters
	"Africa/Cairo":        "EET-2EEST,M4.5.5/0,M10.5.4/24",                // at midnight
}

func TestRulesAreThoseOfTheZoneFiles(t *testing.T) {
	for name, rule := range zones {
		b, err := os.ReadFile(filepath.Join("/usr/share/zoneinfo", name))
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("no zone files on this machine, install tzdata: %v", err)
		}
		if !bytes.HasSuffix(b, []byte("\n"+rule+"\n")) {
			t.Errorf("%s ends in %q, want the rule %s", name, b[max(0, len(b)-60):], rule)
		}
		file, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zone, err := Zone(rule)
		if err != nil {
			t.Fatal(err)
		}
		for at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2029; at = at.Add(15 * time.Minute) {
			_, want := at.In(file).Zone()
			if _, got := at.In(zone).Zone(); got != want {
				t.Fatalf("%s at %v: %d s from UTC, want %d", name, at, got, want)
			}
		}
	}
}

func TestOddRulesAreNoZones(t *testing.T) {
	for _, rule := range []string{
		"", "UTC", "Europe/Berlin", "0", "CET", "CE-1", "?0", "<?>0", "CET-1CEST,", "CET-1CEST,M3.5.0", "CET-1CEST,M3.5.0,", "CET-1CEST,M3.5.0,M13.5.0", "CET-1CEST,M3.6.0,M10.5.0",
		"CET-1CEST,M3.5.7,M10.5.0", "CET-1CEST,M3.5.0,M10.5.0/3/4", "CET-1CEST,M3.5.0,M10.5.0 ", " UTC0", "UTC0\n", "UTC0\x00", "CET-169", "CET-1:60", "<CET-1", "CET-1CEST,J0,J365", "CET-1CEST,M3.5.0,366",
		"../../etc/passwd", "../001/good", "EST5EDT", "UTC0,", "UTC0,M3.5.0,M10.5.0", "UTC0,junk", "a b0", "CET-1CEST;M3.5.0,M10.5.0", "CET-1CEST,M3.5.0,M10.5.0,", "<a>0", "<ab c>0", "UTC", "-1", "UTC0UTC1UTC2,M3.5.0,M10.5.0", "<" + string(bytes.Repeat([]byte("a"), MaxZone)) + ">0",
	} {
		if z, err := Zone(rule); err == nil {
			t.Errorf("%q is a zone: %v", rule, time.Unix(0, 0).In(z))
		}
	}
}

func TestHoursCountByTheClockOnTheWall(t *testing.T) {
	work := hours(berlin, Window{monToFri, 8 * 60, 18 * 60}, Window{sat, 9 * 60, 12 * 60})
	night := hours(berlin, Window{sat, 22 * 60, 6 * 60})
	gap := hours(berlin, Window{everyDay, 2 * 60, 2*60 + 30})
	allDay := hours(berlin, Window{1 << 6, 0, dayMinutes})
	for _, tt := range []struct {
		what  string
		hours Hours
		at    string
		want  bool
	}{
		{"Monday at eight", work, "2026-11-23T08:00:00+01:00", true},
		{"a moment before", work, "2026-11-23T07:59:59+01:00", false},
		{"the last moment", work, "2026-11-23T17:59:59+01:00", true},
		{"Monday at six", work, "2026-11-23T18:00:00+01:00", false},
		{"Saturday morning", work, "2026-11-21T11:00:00+01:00", true},
		{"Saturday noon", work, "2026-11-21T12:00:00+01:00", false},
		{"Sunday", work, "2026-11-22T11:00:00+01:00", false},
		{"eight in summer", work, "2026-07-20T06:00:00Z", true},
		{"eight in winter is not yet", work, "2026-11-23T06:00:00Z", false},

		{"Saturday night", night, "2026-11-21T22:00:00+01:00", true},
		{"Sunday before six", night, "2026-11-22T05:59:59+01:00", true},
		{"Sunday at six", night, "2026-11-22T06:00:00+01:00", false},
		{"Sunday night", night, "2026-11-22T22:00:00+01:00", false},
		{"Saturday before six", night, "2026-11-21T05:00:00+01:00", false},

		// 29 March 2026: at 2:00 it is 3:00. 25 October 2026: at 3:00 it is 2:00.
		{"the last moment before the gap", gap, "2026-03-29T01:59:59+01:00", false},
		{"the first moment after the gap", gap, "2026-03-29T01:00:00Z", false},
		{"the day before the gap", gap, "2026-03-28T02:10:00+01:00", true},
		{"the first 2:10", gap, "2026-10-25T02:10:00+02:00", true},
		{"the first 2:40", gap, "2026-10-25T02:40:00+02:00", false},
		{"the second 2:10", gap, "2026-10-25T02:10:00+01:00", true},
		{"the second 2:40", gap, "2026-10-25T02:40:00+01:00", false},

		{"the last moment of a whole day", allDay, "2026-11-22T23:59:59+01:00", true},
		{"the day after", allDay, "2026-11-23T00:00:00+01:00", false},
		{"no hours", Hours{}, "2026-11-22T23:59:59+01:00", true},
	} {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := tt.hours.Open(at); got != tt.want {
			t.Errorf("%s (%s): open %t, want %t", tt.what, tt.at, got, tt.want)
		}
	}
}

// TestNextIsTheFirstChange compares Next with a look at every minute of two
// years, of which one is a leap year, for windows of all kinds.
func TestNextIsTheFirstChange(t *testing.T) {
	first := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(5, 7))
	for _, rule := range zones {
		zone, err := Zone(rule)
		if err != nil {
			t.Fatal(err)
		}
		var watches []*watch
		for _, windows := range [][]Window{
			{{monToFri, 8 * 60, 18 * 60}},
			{{everyDay, 22 * 60, 6 * 60}},
			{{1 << 6, 2 * 60, 2*60 + 30}}, // in the gap
			{{sat, 23*60 + 59, 1}, {1 << 6, 60, 3 * 60}, {monToFri, 0, dayMinutes}},
			{
				{uint8(1 + random.IntN(127)), uint16(random.IntN(720)), uint16(721 + random.IntN(720))},
				{uint8(1 + random.IntN(127)), uint16(721 + random.IntN(719)), uint16(1 + random.IntN(720))},
			},
		} {
			h := hours(rule, windows...)
			w := &watch{hours: h, was: h.Open(first), asked: first, next: h.Next(first)}
			for m := range w.week {
				w.week[m] = slices.ContainsFunc(windows, func(w Window) bool { return w.open(m/dayMinutes, m%dayMinutes) })
			}
			watches = append(watches, w)
		}
		offset := 0
		for at := first; at.Year() < 2029; at = at.Add(time.Minute) {
			if at.Minute()%15 == 0 { // these zones change their clocks at no other time
				_, offset = at.In(zone).Zone()
			}
			wall := at.Add(time.Duration(offset) * time.Second)
			minute := ((int(wall.Weekday())+6)%7*24+wall.Hour())*60 + wall.Minute()
			for _, w := range watches {
				w.minute(t, at, w.week[minute])
			}
		}
	}
}

// watch looks at some hours minute by minute.
type watch struct {
	hours Hours
	week  [7 * dayMinutes]bool // by the clock on the wall
	was   bool                 // open
	asked time.Time            // when Next was asked last
	next  time.Time            // and its answer
}

func (w *watch) minute(t *testing.T, at time.Time, is bool) {
	switch {
	case is != w.was && !w.next.Equal(at):
		t.Fatalf("%v: asked at %v, the next change is at %v, and it is at %v", w.hours, w.asked, w.next, at)
	case is == w.was && w.next.Equal(at) && at.Sub(w.asked) < lookAhead:
		t.Fatalf("%v: asked at %v, the next change is at %v, and there is none", w.hours, w.asked, w.next)
	case w.next.Equal(at): // asked in the middle of a second it is the same
		w.asked, w.was, w.next = at, is, w.hours.Next(at.Add(time.Nanosecond))
	}
}

func TestNextWhereNothingChanges(t *testing.T) {
	if next := (Hours{}).Next(now); !next.IsZero() {
		t.Errorf("always changes at %v", next)
	}
	whole := hours("UTC0", Window{everyDay, 0, dayMinutes})
	if next, want := whole.Next(now), now.Add(lookAhead); next.Before(want) || next.After(want.Add(24*time.Hour)) {
		t.Errorf("the whole week is looked at again at %v, want %v", next, want)
	}
}

func TestGrantHoldsInItsHours(t *testing.T) {
	p := always()
	p.Hours = hours("UTC0", Window{1 << 6, 12 * 60, 13 * 60}) // 12:00 is the time now, a Sunday
	p.End = now.Add(20 * time.Hour)
	g := Sign(p, policyKey).Stamp(stampKey, now)
	for _, tt := range []struct {
		at   time.Time
		want wire.Reason
		next time.Time
	}{
		{g.From.Add(-time.Hour), wire.ReasonGrantExpired, g.From},
		{now.Add(-time.Second), wire.ReasonOutsideHours, now},
		{now, wire.ReasonNone, now.Add(time.Hour)},
		{now.Add(time.Hour - 1), wire.ReasonNone, now.Add(time.Hour)},
		{now.Add(time.Hour), wire.ReasonOutsideHours, p.End},
		{p.End, wire.ReasonGrantExpired, time.Time{}},
	} {
		if got := g.Valid(tt.at); got != tt.want {
			t.Errorf("at %v: %v, want %v", tt.at, got, tt.want)
		}
		if got := g.Next(tt.at); !got.Equal(tt.next) {
			t.Errorf("at %v: looked at again at %v, want %v", tt.at, got, tt.next)
		}
	}
	g.Hours = Hours{}
	if got := g.Next(now); !got.Equal(p.End) {
		t.Errorf("without hours looked at again at %v, want %v", got, p.End)
	}
	g.Until = g.From.Add(maxStamp + time.Second)
	if got := g.Next(now); !got.IsZero() {
		t.Errorf("with a stamp that is never good, looked at again at %v", got)
	}
}

func TestHoursAreWrittenAsInAPolicy(t *testing.T) {
	for want, w := range map[string]Window{
		"mon-fri 08:00-18:00":         {monToFri, 480, 1080},
		"sat,sun 22:00-06:00":         {0x60, 1320, 360},
		"00:00-24:00":                 {everyDay, 0, dayMinutes},
		"mon,wed,fri-sun 00:01-00:02": {0b1110101, 1, 2},
		"sun 12:00-13:00":             {1 << 6, 720, 780},
	} {
		if got := w.String(); got != want {
			t.Errorf("%v: %s, want %s", w.Days, got, want)
		}
	}
	if got, want := permission().Hours.String(), "mon-fri 08:00-18:00, sat 22:00-06:00 "+berlin; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHoursHaveOneEncoding(t *testing.T) {
	a, b := Window{monToFri, 8 * 60, 18 * 60}, Window{sat, 22 * 60, 6 * 60}
	if hours(berlin, a, b) != hours(berlin, b, a, b) {
		t.Error("the order of windows makes other hours")
	}
	if hours(berlin, a) == hours("UTC0", a) || hours(berlin, a) == hours(berlin, b) || hours(berlin, a).Rule() != berlin {
		t.Error("zone or windows make no difference")
	}
	for _, w := range []Window{{}, {0, 1, 2}, {128, 1, 2}, {1, 5, 5}, {1, dayMinutes, 5}, {1, 5, dayMinutes + 1}, {1, 5, 0}} {
		if h, err := NewHours("UTC0", []Window{w}); err == nil {
			t.Errorf("%v are hours: %v", w, h)
		}
	}
	if _, err := NewHours("UTC0", nil); err == nil {
		t.Error("no windows are hours")
	}
	if _, err := NewHours("UTC0", append(manyWindows(), Window{1, 1, 2})); err == nil {
		t.Error("65 windows are hours")
	}
}
