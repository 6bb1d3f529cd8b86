package joining

import (
	"crypto/tls"
	"maps"
	"slices"
	"testing"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
)

// door is where somebody proves himself to one of the programs.
type door struct {
	name   string
	admits []identity.Role
	few    bool // who tries it has to wait ever longer
	// try reports of each certificate whether it was taken.
	try func([]tls.Certificate) []bool
}

// each makes a door of one that is tried with one certificate after the other.
func each(try func(tls.Certificate) bool) func([]tls.Certificate) []bool {
	return func(certs []tls.Certificate) (taken []bool) {
		for _, cert := range certs {
			taken = append(taken, try(cert))
		}
		return taken
	}
}

// doors are all that there are. Those of the server come after those that mallory's connection
// to it is needed for: another of the same name takes its place.
func (f *fortress) doors() []door {
	portal, relay, server, admin := identity.Portal, identity.Relay, identity.Server, identity.Admin
	f.ask("issue", "portal", "ann", "--out", f.folder("ann"))
	f.issueRelay("relay-2", 0)
	f.enrolAdmin()
	return []door{
		{"a portal, as the one who dials it", []identity.Role{portal}, false, each(func(cert tls.Certificate) bool { return f.tunnel(true, cert) })},
		{"a portal, as the one it dials", []identity.Role{portal}, true, each(func(cert tls.Certificate) bool { return f.tunnel(false, cert) })},
		{"the server's control protocol", []identity.Role{portal, relay}, false, each(func(cert tls.Certificate) bool {
			return f.answers(f.dial(f.address, identity.ProtocolControl, cert), wire.Hello{Version: wire.ControlVersion})
		})},
		{"the server's administration", []identity.Role{admin}, false, each(func(cert tls.Certificate) bool {
			c := f.dial(f.address, identity.ProtocolAdmin, cert)
			defer c.Close()
			return local.CallOver(f.t.Context(), c, "admins", struct{}{}, new(any)) == nil
		})},
		{"the server's enrolment", []identity.Role{portal, relay, admin}, false, each(func(cert tls.Certificate) bool {
			return f.answers(f.dial(f.address, identity.ProtocolEnrol, cert), wire.Enrol{Version: wire.ControlVersion, CSR: []byte{1}})
		})},
		{"the relay's shared port", []identity.Role{portal}, false, each(func(cert tls.Certificate) bool {
			return f.admitted(f.dial(f.shared, identity.ProtocolRelay, cert))
		})},
		{"a portal, as its server", []identity.Role{server}, false, func(certs []tls.Certificate) []bool { return f.impostors("portal", "ann", certs) }},
		{"a relay, as its server", []identity.Role{server}, false, func(certs []tls.Certificate) []bool { return f.impostors("relay", "relay-2", certs) }},
	}
}

// T21, B69: of the four roles only the right one gets in at each door of the real programs, on
// either side of a connection. An admin is one to the server alone.
func TestEachDoorIsForItsRole(t *testing.T) {
	f := newFortress(t)
	roles := []identity.Role{identity.Portal, identity.Relay, identity.Admin, identity.Server}
	var certs []tls.Certificate
	for _, role := range roles {
		certs = append(certs, f.good(role))
	}
	for _, d := range f.doors() {
		for i, got := range d.try(certs) {
			if want := slices.Contains(d.admits, roles[i]); got != want {
				t.Errorf("%s: a certificate of role %s is taken: %t, want %t", d.name, roles[i], got, want)
			}
		}
	}
}

// T21, B68: whoever has a name in an odd form, or two of them, is nobody, at any door.
func TestOddNamesOpenNoDoor(t *testing.T) {
	f := newFortress(t)
	made := make(map[identity.Role][]tls.Certificate)
	what := slices.Sorted(maps.Keys(identitytest.OddNames("portal", "x")))
	for _, role := range []identity.Role{identity.Portal, identity.Server, identity.Admin} {
		odd := identitytest.OddNames(string(role), f.names[role])
		for _, name := range what {
			made[role] = append(made[role], f.forge(role, odd[name]))
		}
	}
	for _, d := range f.doors() {
		role := d.admits[0]
		var got []bool
		certs := made[role]
		if d.few {
			certs = certs[:2]
		}
		for some := range slices.Chunk(certs, 15) { // a portal has 16 servers at most
			got = append(got, d.try(some)...)
		}
		for i, taken := range got {
			if taken {
				t.Errorf("%s: a certificate with %s was taken", d.name, what[i])
			}
		}
		if !d.try([]tls.Certificate{f.good(role)})[0] {
			t.Errorf("%s: not even a good certificate was taken", d.name)
		}
	}
}
