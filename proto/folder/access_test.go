package folder

import (
	"strings"
	"testing"
)

// What others are called in the lists of this test.
const (
	me          = "S-1-5-21-1-2-3-1001"
	system      = "S-1-5-18"
	admins      = "S-1-5-32-544"
	users       = "S-1-5-32-545"
	allOfDomain = "S-1-5-21-9-9-9-513"
)

func TestWhoElseHasRights(t *testing.T) {
	const full, read = 0x1F01FF, 0x1200A9
	mine := []access{{sid: system, mask: full}, {sid: admins, mask: full}, {sid: me, mask: full}}
	with := func(a ...access) []access { return append(append([]access(nil), mine...), a...) }
	for _, tt := range []struct {
		what   string
		s      security
		rights uint32
		heirs  bool
		want   string // SID; empty: nobody
	}{
		{"mine alone", security{owner: me, allows: mine}, toUse, true, ""},
		{"made by an administrator", security{owner: admins, allows: mine}, toUse, true, ""},
		{"of a domain whose administrators may", security{owner: me, allows: with(access{sid: "S-1-5-21-9-9-9-512", mask: full})}, toUse, true, ""},
		{"all users of a domain may", security{owner: me, allows: with(access{sid: allOfDomain, mask: full})}, toUse, true, allOfDomain},
		{"a user who is like an administrator in name only", security{owner: me, allows: with(access{sid: "S-1-5-80-1-512", mask: full})}, toUse, true, "S-1-5-80-1-512"},
		{"no list, as on FAT", security{owner: me, open: true}, toReplace, false, everyone},
		{"another's: he may change the list", security{owner: users, allows: mine}, toReplace, false, users},
		{"readable, asked who writes", security{owner: me, allows: with(access{sid: users, mask: read})}, toChange, false, ""},
		{"readable, asked who uses", security{owner: me, allows: with(access{sid: users, mask: read})}, toUse, false, users},
		{"as ProgramData: users make files and folders", security{owner: system, allows: with(access{sid: users, mask: 0x100116})}, toChange, false, users},
		{"the same, asked who replaces", security{owner: system, allows: with(access{sid: users, mask: 0x100116})}, toReplace, false, ""},
		{"users remove what is in it", security{owner: system, allows: with(access{sid: users, mask: deleteChild})}, toReplace, false, users},
		{"users change the list", security{owner: system, allows: with(access{sid: users, mask: writeList})}, toReplace, false, users},
		{"whoever makes something has it", security{owner: system, allows: with(access{sid: "S-1-3-0", mask: genericAll, later: true})}, toUse, true, ""},
		{"as C: users have what is made below", security{owner: system, allows: with(access{sid: users, mask: full, later: true})}, toReplace, false, ""},
		{"the same, asked for what is made in it", security{owner: system, allows: with(access{sid: users, mask: full, later: true})}, toUse, true, users},
	} {
		sid, found := tt.s.stranger(tt.rights, tt.heirs, []string{me})
		if sid != tt.want || found != (tt.want != "") {
			t.Errorf("%s: %q, %t; want %q", tt.what, sid, found, tt.want)
		}
	}
}

// TestAccountOfAService has the one account of which everybody knows both name and SID.
func TestAccountOfAService(t *testing.T) {
	if got := serviceSID("TrustedInstaller"); got != rulers[2] {
		t.Errorf("TrustedInstaller is %s, want %s", got, rulers[2])
	}
	if serviceSID(Service) == serviceSID("netport-server") || !strings.HasPrefix(serviceSID(Service), "S-1-5-80-") {
		t.Errorf("the portal's service is %s", serviceSID(Service))
	}
}

func TestPrivateListsTakeNothingOver(t *testing.T) {
	const want = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + me + ")"
	if got := private([]string{me}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
