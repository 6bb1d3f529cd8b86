package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
)

const (
	// maxZoneFile is the largest zone file that is read; the largest there is has
	// 4 kB.
	maxZoneFile = 64 << 10
	// zoneYears is for how many years the clocks of a zone must follow its rule.
	zoneYears = 10
)

// zoneFolders are where systems keep their zone files.
var zoneFolders = []string{"/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"}

// zoneName is the form of a zone's name: it never leads out of its folder.
var zoneName = regexp.MustCompile(`^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}$`)

// zones finds the POSIX rules of time zones.
type zones struct {
	now   time.Time
	known map[string]string // as they were used before
	used  map[string]string
}

func newZones(known map[string]string, now time.Time) zones {
	return zones{now: now, known: known, used: map[string]string{}}
}

// rule returns the rule of a zone, which is named as in the zone database or is a
// rule itself.
func (z zones) rule(name string) (string, error) {
	rule, ok := z.used[name]
	if !ok {
		rule, ok = z.known[name]
	}
	if !ok {
		var err error
		if rule, err = readRule(name, z.now); err != nil {
			return "", err
		}
	}
	z.used[name] = rule
	return rule, nil
}

func readRule(name string, now time.Time) (string, error) {
	if name == "UTC" {
		return "UTC0", nil
	}
	found := false // some zone files
	for _, folder := range zoneFolders {
		b, err := readZoneFile(folder, name)
		if err == nil {
			return footer(name, b, now)
		}
		if _, err := identity.ReadFileLimit(filepath.Join(folder, "Etc/UTC"), maxZoneFile); err == nil {
			found = true
		}
	}
	if _, err := grant.Zone(name); err == nil {
		return name, nil
	}
	if !found && zoneName.MatchString(name) {
		return "", fmt.Errorf("zone %q: this machine has no zone files: install tzdata, or write the rule of the zone, as in \"CET-1CEST,M3.5.0,M10.5.0/3\"", name)
	}
	return "", fmt.Errorf("zone %.100q is unknown: write a name of the zone database, as in \"Europe/Berlin\", or a POSIX rule, as in \"CET-1CEST,M3.5.0,M10.5.0/3\"", name)
}

func readZoneFile(folder, name string) ([]byte, error) {
	if !zoneName.MatchString(name) {
		return nil, fs.ErrNotExist
	}
	b, err := identity.ReadFileLimit(filepath.Join(folder, name), maxZoneFile)
	if err == nil && !bytes.HasPrefix(b, []byte("TZif")) {
		err = errors.New("that is no zone file")
	}
	return b, err
}

// footer returns the rule at the end of a zone file (RFC 9636, section 3.3), which is
// for the time after all changes that the file lists. A zone whose clocks do not
// follow it from now on is refused: portals know the rule only.
func footer(name string, file []byte, now time.Time) (string, error) {
	full, err := time.LoadLocationFromTZData(name, file)
	if err != nil {
		return "", fmt.Errorf("zone %q: its file cannot be read: %w", name, err)
	}
	file = bytes.TrimSuffix(file, []byte("\n"))
	rule := string(file[bytes.LastIndexByte(file, '\n')+1:])
	ruled, err := grant.Zone(rule)
	if err != nil {
		return "", fmt.Errorf("zone %q: its file ends in no rule: %w", name, err)
	}
	for t := now; t.Before(now.AddDate(zoneYears, 0, 0)); {
		_, want := t.In(full).Zone()
		if _, got := t.In(ruled).Zone(); got != want {
			return "", fmt.Errorf("zone %q: its clocks are changed by no rule that holds every year (on %s, for one): write hours in a zone that has one, as in \"UTC\" or \"Etc/GMT-1\"", name, t.Format(time.DateOnly))
		}
		next := t.AddDate(0, 1, 0)
		for _, zone := range []*time.Location{full, ruled} {
			if _, end := t.In(zone).ZoneBounds(); end.After(t) && end.Before(next) {
				next = end
			}
		}
		t = next
	}
	return rule, nil
}

// Zones returns the rules of all time zones that the policy names, for ParseAgain.
func (p *Policy) Zones() map[string]string { return p.zones.used }
