package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inFolder makes a folder the only one with zone files.
func inFolder(t *testing.T, folder string) {
	was := zoneFolders
	zoneFolders = []string{folder}
	t.Cleanup(func() { zoneFolders = was })
}

func hoursIn(zone string) string {
	return forward(name, from, to, `hours = "08:00-18:00"`, `zone = "`+zone+`"`)
}

func TestZonesOfTheSystem(t *testing.T) {
	for zone, rule := range map[string]string{
		"Europe/Berlin":                  "CET-1CEST,M3.5.0,M10.5.0/3",
		"America/Argentina/Buenos_Aires": "<-03>3",
		"Etc/GMT-1":                      "<+01>-1",
		"UTC":                            "UTC0",
		"EST5EDT4,M3.2.0,M11.1.0":        "EST5EDT4,M3.2.0,M11.1.0",
	} {
		p := parse(t, hoursIn(zone))
		if got := p.Forwards[0].terms.Hours.Rule(); got != rule || p.Zones()[zone] != rule {
			t.Errorf("%s: %s, kept as %q; want %s", zone, got, p.Zones(), rule)
		}
	}
	// Its clocks follow the moon.
	_, err := Parse("policy.toml", []byte(hoursIn("Africa/Casablanca")), now)
	if err == nil || !strings.Contains(err.Error(), `policy.toml:7:8: forward "web": zone "Africa/Casablanca": its clocks are changed by no rule that holds every year (on 2027-`) {
		t.Errorf("a zone without a rule: %v", err)
	}
}

func TestZoneOfAnOddFileIsRefused(t *testing.T) {
	good, err := os.ReadFile("/usr/share/zoneinfo/Europe/Berlin")
	if err != nil {
		t.Fatalf("%v: install tzdata", err)
	}
	folder := t.TempDir()
	inFolder(t, folder)
	put := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(folder, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("good", good)
	put("text", []byte("Europe/Berlin\n"))
	put("cut", good[:len(good)-len("CET-1CEST,M3.5.0,M10.5.0/3\n")-1])
	put("ruleless", append(good[:len(good)-len("CET-1CEST,M3.5.0,M10.5.0/3\n"):len(good)-len("CET-1CEST,M3.5.0,M10.5.0/3\n")], '\n'))
	put("another", append(good[:len(good)-len("CET-1CEST,M3.5.0,M10.5.0/3\n"):len(good)-len("CET-1CEST,M3.5.0,M10.5.0/3\n")], "EST5\n"...))
	put("large", append([]byte("TZif2"), make([]byte, maxZoneFile)...))
	if err := os.Mkdir(filepath.Join(folder, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	parse(t, hoursIn("good"))
	for _, zone := range []string{"text", "cut", "ruleless", "another", "large", "dir", "absent", "./good", "../" + filepath.Base(folder) + "/good", "good/", "", folder + "/good"} {
		p, err := Parse("policy.toml", []byte(hoursIn(zone)), now)
		if err == nil || !strings.Contains(err.Error(), "zone ") {
			t.Errorf("zone %q: %v, %v", zone, p, err)
		}
	}
}

func TestMachineWithoutZoneFilesSaysSo(t *testing.T) {
	inFolder(t, filepath.Join(t.TempDir(), "absent"))
	if _, err := Parse("policy.toml", []byte(hoursIn("Europe/Berlin")), now); err == nil || !strings.Contains(err.Error(), "install tzdata, or write the rule of the zone") {
		t.Errorf("without zone files: %v", err)
	}
	parse(t, hoursIn("UTC"))
	parse(t, hoursIn("CET-1CEST,M3.5.0,M10.5.0/3"))
	p, err := ParseAgain("policy.toml", []byte(hoursIn("Europe/Berlin")), now, map[string]string{"Europe/Berlin": "CET-1"})
	if err != nil || p.Forwards[0].terms.Hours.Rule() != "CET-1" {
		t.Errorf("a zone that was known before: %v", err)
	}
	if open := p.Forwards[0].terms.Hours.Open(time.Date(2027, 7, 1, 7, 0, 0, 0, time.UTC)); !open {
		t.Error("it is eight by the rule of before, and the hours are closed")
	}
}
