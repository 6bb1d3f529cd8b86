package joining

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

// T23, B73: what was revoked opens no door of the real programs again, in whatever form it comes: the
// certificate, the other signature of it, a newer one for the same key, one under an intermediate
// that was revoked. There is no session to be resumed. (What runs is cut: package fleet.)
func TestRevokedOpensNoDoor(t *testing.T) {
	f := newFortress(t)
	var doors []door
	for _, d := range f.doors() {
		if d.name == "the server's control protocol" || d.name == "the server's enrolment" || d.name == "the relay's shared port" {
			doors = append(doors, d)
		}
	}
	if len(doors) != 3 {
		t.Fatalf("%d doors", len(doors))
	}
	want := func(when, what string, cert tls.Certificate, want bool) {
		t.Helper()
		for _, d := range doors {
			if got := d.try([]tls.Certificate{cert})[0]; got != want {
				t.Errorf("%s: %s at %s: taken %t, want %t", when, what, d.name, got, want)
			}
		}
	}
	// The relay hears of it a moment after the server knows it (G6: 5 s).
	refused := func(cert tls.Certificate) {
		t.Helper()
		await.Within(t, "refused", 5*time.Second, func() error {
			for _, d := range doors {
				if d.try([]tls.Certificate{cert})[0] {
					return errors.New(d.name + " takes it")
				}
			}
			return nil
		})
	}
	names := fmt.Sprintf("subjectAltName=URI:spiffe://%s/portal/mallory\n", domain) + identitytest.BothUsages

	f.Key("middle")
	f.Sign("middle", "middle", "ca", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n")
	f.Sign("below", "portal", "middle", names)
	good, below := f.good(identity.Portal), f.Load(f.keys[identity.Portal], "below", "middle")
	want("before", "its certificate", good, true)
	want("before", "the other signature of it", identitytest.Malleated(t, good), true)
	want("before", "one under an intermediate", below, true)
	for protocol, address := range map[string]string{identity.ProtocolControl: f.address, identity.ProtocolRelay: f.shared} {
		f.wantNoTicket(address, protocol, good)
	}

	middle, err := identity.LoadCertificates(f.File("middle.pem"))
	if err != nil {
		t.Fatal(err)
	}
	hash := identity.HashKey(middle[0])
	f.ask("revoke", "--key", hex.EncodeToString(hash[:]))
	refused(below)
	want("its authority revoked", "another certificate", good, true)

	f.ask("revoke", "portal", "mallory")
	refused(good)
	want("revoked", "the other signature of its certificate", identitytest.Malleated(t, good), false)
	want("revoked", "a newer certificate for the same key", f.good(identity.Portal), false)
	want("revoked", "the one under an intermediate", below, false)
}

// wantNoTicket wants that who would resume a session is not able to.
func (f *fortress) wantNoTicket(address, protocol string, cert tls.Certificate) {
	f.t.Helper()
	cfg := presenting(protocol, cert)
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		c := tls.Client(f.dial(address, protocol, cert).NetConn(), cfg)
		if !f.admitted(c) {
			f.t.Errorf("%s: a good certificate is refused", protocol)
		}
		if c.ConnectionState().DidResume {
			f.t.Errorf("%s: a session was resumed", protocol)
		}
		if ticket, ok := cfg.ClientSessionCache.Get(cfg.ServerName); ok && ticket != nil {
			f.t.Errorf("%s: a ticket was given out", protocol)
		}
	}
}
