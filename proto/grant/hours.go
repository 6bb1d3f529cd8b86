package grant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// MaxZone is the longest rule of a zone, in bytes.
	MaxZone = 64
	// MaxWindows is the most windows of a permission's hours.
	MaxWindows = 64

	dayMinutes  = 24 * 60
	weekSeconds = 7 * dayMinutes * 60
	// lookAhead is how far Next looks for a change.
	lookAhead = 5 * 7 * 24 * time.Hour
)

// Window is a part of some days of the week, by the clock on the wall. One whose
// Until is not above its From is overnight: it begins on each of its days at
// From and lasts until Until on the day after.
type Window struct {
	Days  uint8  // bit 0 is Monday, bit 6 Sunday; at least one
	From  uint16 // minute of the day, 0 to 1439
	Until uint16 // minute of the day that is no longer part of it, 1 to 1440; not From
}

func (w Window) check() error {
	switch {
	case w.Days == 0 || w.Days > 0x7f:
		return fmt.Errorf("hours: the days %#x are none of a week", w.Days)
	case w.From >= dayMinutes || w.Until == 0 || w.Until > dayMinutes || w.From == w.Until:
		return fmt.Errorf("hours: from minute %d until minute %d is no part of a day", w.From, w.Until)
	}
	return nil
}

// open reports whether a minute of a day, 0 for Monday, is in the window.
func (w Window) open(day, minute int) bool {
	on := func(day int) bool { return w.Days>>((day+7)%7)&1 == 1 }
	m := uint16(minute)
	if w.From < w.Until {
		return on(day) && w.From <= m && m < w.Until
	}
	return on(day) && w.From <= m || on(day-1) && m < w.Until
}

// DayNames are the names of the days in texts, from Monday on.
var DayNames = [7]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// String returns the window as policies write it: "mon-fri 08:00-18:00", or only the
// times where it is for every day.
func (w Window) String() string {
	times := fmt.Sprintf("%02d:%02d-%02d:%02d", w.From/60, w.From%60, w.Until/60, w.Until%60)
	if w.Days == 0x7f {
		return times
	}
	var parts []string
	for d := 0; d < 7; d++ {
		if w.Days>>d&1 == 0 {
			continue
		}
		last := d
		for last < 6 && w.Days>>(last+1)&1 == 1 {
			last++
		}
		switch {
		case last > d+1:
			parts = append(parts, DayNames[d]+"-"+DayNames[last])
		case last > d:
			parts = append(parts, DayNames[d], DayNames[last])
		default:
			parts = append(parts, DayNames[d])
		}
		d = last
	}
	return strings.Join(parts, ",") + " " + times
}

// Hours are the weekly windows in which a permission holds. The zero Hours are
// always. They are comparable with ==.
//
// What counts is the clock on the wall of the zone, and nothing else: a moment is
// within the hours when the day and the minute that this clock then shows are. So,
// when clocks go forward, the minutes that they skip do not come, and a window of
// only such minutes does not open on that day; when clocks go back, the minutes
// that they show twice count twice.
type Hours struct {
	zone    string
	windows string // encoded, each 5 bytes, in ascending order
}

const windowSize = 5

// NewHours returns the windows in the zone, which is a POSIX TZ rule such as
// "CET-1CEST,M3.5.0,M10.5.0/3" (RFC 9636, section 3.3). The order of the windows
// and repeated ones make no difference.
func NewHours(zone string, windows []Window) (Hours, error) {
	var each []string
	for _, w := range windows {
		if err := w.check(); err != nil {
			return Hours{}, err
		}
		b := binary.BigEndian.AppendUint16([]byte{w.Days}, w.From)
		each = append(each, string(binary.BigEndian.AppendUint16(b, w.Until)))
	}
	slices.Sort(each)
	each = slices.Compact(each)
	if len(each) == 0 || len(each) > MaxWindows {
		return Hours{}, fmt.Errorf("hours: %d windows: 1 to %d are allowed", len(each), MaxWindows)
	}
	if _, err := Zone(zone); err != nil {
		return Hours{}, err
	}
	return Hours{zone, strings.Join(each, "")}, nil
}

// IsZero reports whether h is always.
func (h Hours) IsZero() bool { return h == Hours{} }

// Rule returns the POSIX TZ rule of the zone.
func (h Hours) Rule() string { return h.zone }

// Windows returns the windows.
func (h Hours) Windows() []Window {
	list := make([]Window, 0, len(h.windows)/windowSize)
	for b := []byte(h.windows); len(b) > 0; b = b[windowSize:] {
		list = append(list, Window{b[0], binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint16(b[3:])})
	}
	return list
}

// String returns the windows, and the rule of their zone.
func (h Hours) String() string {
	var list []string
	for _, w := range h.Windows() {
		list = append(list, w.String())
	}
	return strings.Join(list, ", ") + " " + h.zone
}

// Open reports whether the time now is within the hours.
func (h Hours) Open(now time.Time) bool {
	if h.IsZero() {
		return true
	}
	zone, err := Zone(h.zone)
	return err == nil && open(h.Windows(), now.In(zone))
}

func open(windows []Window, now time.Time) bool {
	day, minute := (int(now.Weekday())+6)%7, now.Hour()*60+now.Minute()
	return slices.ContainsFunc(windows, func(w Window) bool { return w.open(day, minute) })
}

// Next returns the first moment after now at which Open may answer otherwise than
// now; zero if there is none. Where nothing changes for five weeks (a window of
// minutes that a change of clocks skips), it returns a moment that far ahead, at
// which to ask again.
func (h Hours) Next(now time.Time) time.Time {
	if h.IsZero() {
		return time.Time{}
	}
	zone, err := Zone(h.zone)
	if err != nil {
		return time.Time{}
	}
	windows := h.Windows()
	was, t, end := open(windows, now.In(zone)), now.In(zone), now.Add(lookAhead)
	for t.Before(end) {
		next := time.Unix(t.Unix()+int64(toEdge(windows, t)), 0).In(zone)
		// The clock of the zone runs evenly up to its next change.
		if change := clockChange(t); change.Before(next) {
			next = change
		}
		if open(windows, next) != was {
			return next.UTC()
		}
		t = next
	}
	return t.UTC()
}

// toEdge returns how many seconds it is from t until some window begins or ends,
// by a clock that runs evenly.
func toEdge(windows []Window, t time.Time) int {
	day := (int(t.Weekday()) + 6) % 7
	at := ((day*24+t.Hour())*60+t.Minute())*60 + t.Second()
	least := weekSeconds
	for _, w := range windows {
		for day := range 7 {
			if w.Days>>day&1 == 0 {
				continue
			}
			until := int(w.Until)
			if w.Until < w.From {
				until += dayMinutes
			}
			for _, edge := range []int{int(w.From), until} {
				ahead := ((day*dayMinutes+edge)*60 - at + weekSeconds) % weekSeconds
				if ahead == 0 {
					ahead = weekSeconds
				}
				least = min(least, ahead)
			}
		}
	}
	return least
}

// clockChange returns a moment after t up to which the zone's clock runs evenly.
func clockChange(t time.Time) time.Time {
	_, change := t.ZoneBounds()
	switch {
	case change.IsZero():
		return t.AddDate(1, 0, 0)
	case !change.After(t):
		// On the last day of a leap year package time gives a bound that lies
		// before it. Then it is looked at minute by minute.
		return time.Unix(t.Unix()/60*60+60, 0).In(t.Location())
	}
	return change
}

// noZone is the abbreviation of the zone in Zone's file, which counts only where
// the rule is not understood. No rule can have it.
const noZone = "?"

// Zone returns the zone of a POSIX TZ rule. It needs no files: the rule is put
// where a TZif file holds the one for the time to come. A rule with summer time must
// say when it is.
func Zone(rule string) (*time.Location, error) {
	if !looksLikeRule(rule) {
		return nil, errZone(rule)
	}
	header := func(types, chars uint32) []byte {
		b := append([]byte("TZif3"), make([]byte, 15+16)...)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, types), chars)
	}
	oneType := append(make([]byte, 6), noZone+"\x00"...)
	file := append(append(append(append(header(1, 2), oneType...), header(1, 2)...), oneType...), "\n"+rule+"\n"...)
	zone, err := time.LoadLocationFromTZData(rule, file)
	if err != nil {
		return nil, errZone(rule)
	}
	if name, _ := time.Unix(0, 0).In(zone).Zone(); name == noZone {
		return nil, errZone(rule)
	}
	return zone, nil
}

// looksLikeRule refuses what package time would read as a rule and no one else: it
// takes almost anything for a name, and leaves unread what follows a comma.
func looksLikeRule(s string) bool {
	head, changes, summer := strings.Cut(s, ",")
	rest, ok := cutZoneName(head)
	if !ok || len(s) > MaxZone || strings.Trim(changes, "0123456789MJ.,/:+-") != "" {
		return false
	}
	offset := strings.TrimLeft(rest, "0123456789:+-")
	if offset == rest {
		return false
	}
	if offset == "" {
		return !summer
	}
	rest, ok = cutZoneName(offset)
	return ok && summer && strings.Trim(rest, "0123456789:+-") == ""
}

// cutZoneName cuts an abbreviation from the front: at least three letters or, in angle
// brackets, letters, digits and signs.
func cutZoneName(s string) (rest string, ok bool) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	if quoted, ok := strings.CutPrefix(s, "<"); ok {
		name, rest, ok := strings.Cut(quoted, ">")
		return rest, ok && len(name) >= 3 && strings.Trim(name, letters+"0123456789+-") == ""
	}
	rest = strings.TrimLeft(s, letters)
	return rest, len(s)-len(rest) >= 3
}

func errZone(rule string) error {
	return fmt.Errorf("%.100q is no rule of a time zone: it is written like CET-1CEST,M3.5.0,M10.5.0/3", rule)
}

// appendTo appends the zone's rule and the windows.
func (h Hours) appendTo(b []byte) []byte {
	b = wire.AppendBlob(b, []byte(h.zone))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.windows)/windowSize))
	return append(b, h.windows...)
}

var errHours = errors.New("hours: the windows are not in order, or there is a zone without any")

func readHours(r *wire.Reader) (Hours, error) {
	zone := string(r.Blob(MaxZone))
	n := r.Count(MaxWindows, windowSize)
	windows := make([]Window, n)
	for i := range windows {
		windows[i] = Window{r.Uint8(), r.Uint16(), r.Uint16()}
	}
	if n == 0 && zone == "" {
		return Hours{}, nil
	}
	h, err := NewHours(zone, windows)
	if err == nil && !slices.Equal(h.Windows(), windows) {
		return Hours{}, errHours
	}
	return h, err
}
