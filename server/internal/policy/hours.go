package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/netport/netport/proto/grant"
)

// readHours reads the hours of a forward in their zone.
func (p *Policy) readHours(f *Forward, raw *rawForward) error {
	zoneKey := f.key + ".zone"
	if raw.Hours == nil {
		if p.file.Has(zoneKey) {
			return p.file.Errorf(zoneKey, "forward %q: a zone without hours says nothing: write hours = [\"mon-fri 08:00-18:00\"]", f.Name)
		}
		return nil
	}
	texts, err := p.readList(f, "hours", `"mon-fri 08:00-18:00"`, raw.Hours, grant.MaxWindows)
	if err != nil {
		return err
	}
	var windows []grant.Window
	for _, t := range texts {
		w, err := parseWindow(t.text)
		if err != nil {
			return p.file.Errorf(t.key, "forward %q: hours %q: %v", f.Name, t.text, err)
		}
		if slices.Contains(windows, w) {
			return p.file.Errorf(t.key, "forward %q: hours %q are named twice", f.Name, t.text)
		}
		windows = append(windows, w)
	}
	zone := raw.Zone
	if !p.file.Has(zoneKey) {
		zone = "UTC"
	}
	rule, err := p.zones.rule(zone)
	if err != nil {
		return p.file.Errorf(zoneKey, "forward %q: %v", f.Name, err)
	}
	if f.terms.Hours, err = grant.NewHours(rule, windows); err != nil {
		return p.file.Errorf(f.key+".hours", "forward %q: %v", f.Name, err)
	}
	f.zone = zone
	return nil
}

// parseWindow reads "mon-fri 08:00-18:00"; without days it is every day.
func parseWindow(s string) (grant.Window, error) {
	w := grant.Window{Days: 0x7f}
	parts := strings.Fields(s)
	if len(parts) == 2 {
		var err error
		if w.Days, err = parseDays(parts[0]); err != nil {
			return w, err
		}
		parts = parts[1:]
	}
	if len(parts) != 1 {
		return w, fmt.Errorf("write days and a time, as in \"mon-fri 08:00-18:00\" or \"22:00-06:00\"")
	}
	from, until, ok := strings.Cut(parts[0], "-")
	if !ok {
		return w, fmt.Errorf("%q is no time from and until: write it as 08:00-18:00", parts[0])
	}
	var errs [2]error
	w.From, errs[0] = parseMinute(from)
	w.Until, errs[1] = parseMinute(until)
	for _, err := range errs {
		if err != nil {
			return w, err
		}
	}
	switch {
	case w.From == 24*60:
		return w, fmt.Errorf("a day begins at 00:00: 24:00 is its end only")
	case w.Until == 0:
		w.Until = 24 * 60
	}
	if w.From == w.Until {
		return w, fmt.Errorf("it ends when it begins: for whole days write 00:00-24:00")
	}
	return w, nil
}

// parseDays reads "mon-fri", "sat,sun" and the like as bits, Monday the lowest.
// "fri-mon" goes over the end of the week.
func parseDays(s string) (days uint8, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		from, until := slices.Index(grant.DayNames[:], first), slices.Index(grant.DayNames[:], last)
		if from < 0 || until < 0 {
			return 0, fmt.Errorf("%q are no days: they are %s, joined as in mon-fri or sat,sun", s, strings.Join(grant.DayNames[:], ", "))
		}
		if ok && from == until {
			return 0, fmt.Errorf("%q is one day: write %s", part, first)
		}
		for d := from; ; d = (d + 1) % 7 {
			if days>>d&1 == 1 {
				return 0, fmt.Errorf("%q names %s twice", s, grant.DayNames[d])
			}
			days |= 1 << d
			if d == until {
				break
			}
		}
	}
	return days, nil
}

func parseMinute(s string) (uint16, error) {
	hour, minute, ok := strings.Cut(s, ":")
	h, err1 := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	if !ok || len(hour) != 2 || len(minute) != 2 || err1 != nil || err2 != nil || m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, fmt.Errorf("%q is no time of the day: they are 00:00 to 24:00", s)
	}
	return uint16(h*60 + m), nil
}

// hoursText writes hours as the file holds them.
func hoursText(h grant.Hours, zone string) string {
	return strings.TrimSuffix(h.String(), h.Rule()) + zone
}
