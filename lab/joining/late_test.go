package joining

import (
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// TestPortalThatSleptRenewsByItself has a portal that is switched off until its certificate has expired: started again it
// needs no hand. One that was revoked meanwhile does not come back.
func TestPortalThatSleptRenewsByItself(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"sleeper", "thief", "witness"} {
		if err := w.join("portal", name, w.invite("portal", name)); err != nil {
			t.Fatal(err)
		}
	}
	sleeper, thief := w.start("portal", "sleeper"), w.start("portal", "thief")
	s := w.waitStatus("sleeper", "connected", await.Patience, func(s status) bool { return s.Server.Connected })
	thief.waitLog("connected to server")
	sleeper.stop()
	thief.stop()
	w.ask("revoke", "portal", "thief")
	end := time.Now().Add(2 * time.Second)
	for _, name := range []string{"sleeper", "thief"} {
		w.certify(name, end)
	}
	await.Passing(t, time.Until(end)+2*time.Second)

	w.start("portal", "sleeper")
	again := w.waitStatus("sleeper", "connected again", 2*time.Minute, func(s status) bool { return s.Server.Connected })
	if !again.Certificate.After(end.Add(time.Hour)) || again.Identity.Key != s.Identity.Key {
		t.Errorf("it is back with the key %s until %v, after %s until %v", again.Identity.Key, again.Certificate, s.Identity.Key, end)
	}
	w.start("portal", "thief").waitLog("certificate not renewed")
	if s := w.waitStatus("thief", "running", await.Patience, func(status) bool { return true }); s.Server.Connected {
		t.Error("a revoked portal is connected again")
	}

	// Who was away when it was revoked is told, and knows it when it is started without a server.
	witness := w.start("portal", "witness")
	told := w.waitStatus("witness", "told of the revocation", await.Patience, func(s status) bool { return s.Identity.Revocations > 0 })
	witness.stop()
	w.server.stop()
	w.start("portal", "witness")
	kept := w.waitStatus("witness", "running", await.Patience, func(status) bool { return true })
	if kept.Identity.Revocations != told.Identity.Revocations {
		t.Errorf("started without a server it knows the revocations up to %d, was told of %d", kept.Identity.Revocations, told.Identity.Revocations)
	}
}
