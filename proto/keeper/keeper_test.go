package keeper

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
)

// rig is a device with its files, and a server as a script.
type rig struct {
	*testing.T
	ca     *identitytest.Authority
	dir    string
	policy ed25519.PrivateKey
	config Config

	*Keeper
	stop func()

	mu     sync.Mutex // guards the following
	log    bytes.Buffer
	sent   []FromBoth
	events []string
}

// Write takes what is logged.
func (r *rig) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

// logged returns what was logged until now.
func (r *rig) logged() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// said takes what was said to the server since, and happened the events.
func (r *rig) said() (list []FromBoth) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	list, r.sent = r.sent, nil
	return list
}

func (r *rig) happened() (list []string) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	list, r.events = r.events, nil
	return list
}

func newRig(t *testing.T, tune func(*Config)) *rig {
	r := &rig{T: t, ca: identitytest.New(t), policy: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))}
	r.dir = r.ca.Enrol(identity.Portal, "ann")
	in := func(name string) string { return filepath.Join(r.dir, name) }
	r.config = Config{
		Role: identity.Portal, Certificate: in("cert.pem"), Key: in("key.pem"), CA: in("ca.pem"), State: in("state"),
		Policy: r.policy.Public().(ed25519.PublicKey), Servers: func() []string { return nil },
		Log: slog.New(slog.NewTextHandler(r, nil)),
	}
	if tune != nil {
		tune(&r.config)
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// start starts the device's process.
func (r *rig) start() {
	r.Helper()
	k, err := Open(r.config)
	if err != nil {
		r.Fatal(err)
	}
	r.Keeper = k
	event := func(format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, fmt.Sprintf(format, args...))
	}
	k.Hook(Hooks{
		Renewing: func(inUse, next identity.KeyHash) { event("renewing %t", inUse != next) },
		Renewed:  func(before identity.KeyHash) { event("renewed %t", before != k.Credentials().Key()) },
		Revoked:  func() { event("revoked") },
	})
	ctx, cancel := context.WithCancel(r.Context())
	var running sync.WaitGroup
	running.Go(func() { k.Run(ctx) })
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
}

func (r *rig) connect() {
	r.Connected(func(m FromBoth) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sent = append(r.sent, m)
	})
}

// held returns what it says that it holds, right after it has connected.
func (r *rig) held() uint64 {
	r.Helper()
	held, ok := r.said()[0].(wire.RevocationsHeld)
	if !ok {
		r.Fatal("it does not begin with what it holds")
	}
	return held.Epoch
}

// asked returns the one Renew that was sent, if there was one.
func (r *rig) asked() (m wire.Renew, ok bool) {
	r.Helper()
	for _, s := range r.said() {
		if s, is := s.(wire.Renew); is {
			if ok {
				r.Fatal("asked twice")
			}
			m, ok = s, true
		}
	}
	return m, ok
}

// waitAsked waits until a renewal is asked for, and returns after how long it was.
func (r *rig) waitAsked() (m wire.Renew, after time.Duration) {
	r.Helper()
	begin := time.Now()
	for time.Since(begin) < 60*day {
		if m, ok := r.asked(); ok {
			return m, time.Since(begin)
		}
		time.Sleep(time.Minute)
	}
	r.Fatal("no renewal was asked for")
	return m, 0
}

// issue is the server's answer.
func (r *rig) issue(m wire.Renew, by *identitytest.Authority) *x509.Certificate {
	r.Helper()
	asked, err := identity.ParseRequest(m.CSR)
	if err != nil || asked.ID.Name != "ann" {
		r.Fatal(asked, err)
	}
	cert := by.Issue(asked.ID, asked.Public)
	r.handle(wire.Renewed{Request: m.Request, Chain: [][]byte{cert.Raw}})
	return cert
}

func (r *rig) handle(m wire.Message) {
	r.Helper()
	if taken, err := r.Handle(m); !taken || err != nil {
		r.Fatal(taken, err)
	}
	synctest.Wait()
}

// wantPair wants that what is on disk is a working pair with the certificate.
func (r *rig) wantPair(cert *x509.Certificate) {
	r.Helper()
	c, err := identity.Load(r.config.Certificate, r.config.Key, r.config.CA, identity.Portal, nil)
	if err != nil {
		r.Fatal(err)
	}
	if !c.Leaf().Equal(cert) {
		r.Error("another certificate is on disk")
	}
	if !r.Credentials().Leaf().Equal(cert) {
		r.Error("another certificate is in use")
	}
}

func TestCertificateIsRenewedWhenTwoThirdsAreOver(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("new key %t", fresh), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.RenewKey = fresh })
				r.connect()
				for round := range 2 {
					r.happened()
					leaf := r.Credentials().Leaf()
					life := leaf.NotAfter.Sub(leaf.NotBefore)
					m, _ := r.waitAsked()
					if at := time.Since(leaf.NotBefore); at < life/3*2 || at > life/3*2+life/10+time.Hour+time.Minute {
						t.Errorf("round %d: asked %v after the certificate began, of %v", round, at, life)
					}
					cert := r.issue(m, r.ca)
					r.wantPair(cert)
					if newKey := identity.HashKey(cert) != identity.HashKey(leaf); newKey != fresh {
						t.Errorf("round %d: the key is new: %t", round, newKey)
					}
					want := []string{"renewed false"}
					if fresh {
						want = []string{"renewing true", "renewed true"}
					}
					if got := r.happened(); !slices.Equal(got, want) {
						t.Errorf("round %d: %q, want %q", round, got, want)
					}
					if log := r.logged(); strings.Contains(log, "level=WARN") {
						t.Errorf("round %d: %s", round, log)
					}
				}
			})
		})
	}
}

// TestFleetDoesNotRenewAllAtOnce has devices whose certificates were made at once.
func TestFleetDoesNotRenewAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first, last time.Duration
		for i := range 30 {
			r := newRig(t, nil)
			r.stop()
			begin := time.Now()
			at := r.dueTime(begin, r.Credentials().Leaf()).Sub(begin)
			if i == 0 {
				first, last = at, at
			}
			first, last = min(first, at), max(last, at)
		}
		if spread := last - first; spread < day {
			t.Errorf("30 devices renew within %v", spread)
		}
	})
}

func TestRefusedRenewalIsTriedAgainAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		old := r.Credentials().Leaf()
		tries := 0
		for time.Now().Before(old.NotAfter.Add(-time.Hour)) {
			m, _ := r.waitAsked()
			tries++
			r.handle(wire.RenewRefused{Request: m.Request + 1, Reason: wire.ReasonBusy}) // of something else
			r.handle(wire.RenewRefused{Request: m.Request, Reason: wire.ReasonBusy, Text: "later\n"})
			r.wantPair(old)
			if s := r.Status(); !strings.Contains(s.Renewal, "busy") {
				t.Fatalf("status says %+v", s)
			}
			time.Sleep(time.Minute)
		}
		// A week and more, at most an hour between two.
		if tries < 150 || tries > 700 {
			t.Errorf("tried %d times", tries)
		}
		if n := strings.Count(r.logged(), "expires soon"); n != 2 { // 6 days before: 7 are no less; and 1
			t.Errorf("warned %d times:\n%s", n, r.logged())
		}
		for time.Now().Before(old.NotAfter.Add(2 * time.Hour)) {
			time.Sleep(time.Minute)
		}
		if strings.Count(r.logged(), "has expired and was not renewed") != 1 {
			t.Error("the end was not said once")
		}
	})
}

func TestWhatIsOfNoUseIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		old := r.Credentials().Leaf()
		m, _ := r.waitAsked()
		other := identitytest.New(t)
		r.issue(m, other)
		r.wantPair(old)
		m, _ = r.waitAsked()
		_, key := r.ca.Leaf(identity.Portal, "ann")
		r.handle(wire.Renewed{Request: m.Request, Chain: [][]byte{r.ca.Issue(r.Credentials().ID, key.Public()).Raw}})
		r.wantPair(old)
		m, _ = r.waitAsked()
		r.handle(wire.Renewed{Request: m.Request, Chain: [][]byte{{1, 2, 3}}})
		r.wantPair(old)
		m, _ = r.waitAsked()
		r.Lost()
		synctest.Wait()
		r.connect()
		m, _ = r.waitAsked()
		r.wantPair(r.issue(m, r.ca))
	})
}

// elsewhere are keys that are destroyed where they are when they are no longer used.
type elsewhere struct {
	identity.KeyFiles
	destroyed []identity.KeyHash
}

func (e *elsewhere) Discard(file string) error {
	key, err := e.Load(file)
	if err == nil {
		e.destroyed = append(e.destroyed, identity.HashPublic(key.Public()))
	}
	return err
}

// TestCrashInTheMiddleOfANewKey has what a crash leaves after each step.
func TestCrashInTheMiddleOfANewKey(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave func(r *rig, cert *x509.Certificate)
		new   bool // the new pair counts
	}{
		{"the new key is written", func(*rig, *x509.Certificate) {}, false},
		{"and the certificate", func(r *rig, cert *x509.Certificate) {
			r.must(identity.ReplaceFile(r.config.Certificate, identity.EncodeCertificates(cert), 0o644))
		}, true},
		{"and the key is in its place", func(r *rig, cert *x509.Certificate) {
			r.must(identity.ReplaceFile(r.config.Certificate, identity.EncodeCertificates(cert), 0o644))
			r.must(r.moveKey())
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var keys elsewhere
				r := newRig(t, func(c *Config) { c.RenewKey, c.Keys = true, &keys })
				old := r.Credentials().Leaf()
				r.connect()
				m, _ := r.waitAsked()
				asked, err := identity.ParseRequest(m.CSR)
				r.must(err)
				r.stop() // the answer never comes
				cert := r.ca.Issue(asked.ID, asked.Public)
				tt.leave(r, cert)

				r.start()
				want := old
				if tt.new {
					want = cert
				}
				r.wantPair(want)
				if exists(nextKey(r.config.Key)) == tt.new {
					t.Errorf("the next key is there: %t", !tt.new)
				}
				if !tt.new {
					if len(keys.destroyed) > 0 {
						t.Error("the key that is in use is destroyed")
					}
					r.connect()
					again, _ := r.waitAsked()
					request, err := identity.ParseRequest(again.CSR)
					r.must(err)
					if request.Key != asked.Key {
						t.Error("another key than the server may know already")
					}
					r.wantPair(r.issue(again, r.ca))
				}
				if want := []identity.KeyHash{identity.HashKey(old)}; !slices.Equal(keys.destroyed, want) {
					t.Errorf("destroyed are %v, want the old key %v", keys.destroyed, want)
				}
			})
		})
	}
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) authorities(version uint64, issuing *identitytest.Authority, cas ...*identitytest.Authority) wire.Authorities {
	m := wire.Authorities{Version: version, Issuing: identity.HashKey(issuing.Certificate)}
	for _, ca := range cas {
		m.Certificates = append(m.Certificates, ca.Certificate.Raw)
	}
	return m.Sign(r.policy)
}

func TestAuthoritiesAreTakenFromThePolicyKeyAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		next := identitytest.New(t)
		trusts := func(what string, cas ...*identitytest.Authority) {
			t.Helper()
			var want, got []string
			for _, ca := range cas {
				want = append(want, identity.HashKey(ca.Certificate).String())
			}
			for _, ca := range r.Credentials().Authorities() {
				got = append(got, identity.HashKey(ca).String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: it trusts %q, want %q", what, got, want)
			}
		}
		r.connect()
		forged := r.authorities(1, next, next)
		forged.Signature[0]++
		r.handle(forged)
		trusts("forged", r.ca)
		both := r.authorities(5, next, r.ca, next)
		r.handle(both)
		trusts("both", r.ca, next)
		r.handle(r.authorities(4, r.ca, r.ca))
		trusts("an older one", r.ca, next)
		leaf, _ := next.Leaf(identity.Portal, "ann")
		bad := wire.Authorities{Version: 6, Certificates: [][]byte{leaf.Raw}}.Sign(r.policy)
		r.handle(bad)
		trusts("a leaf", r.ca, next)

		m, after := r.waitAsked()
		if after > rushTime+time.Minute {
			t.Errorf("the certificate of the old authority is renewed after %v", after)
		}
		cert := r.issue(m, next)
		r.wantPair(cert)
		time.Sleep(2 * time.Hour)
		if _, ok := r.asked(); ok {
			t.Error("renewed again, though the issuing authority has signed it")
		}

		r.stop()
		r.start()
		trusts("after a restart", r.ca, next)
		r.stop()
		r.must(os.WriteFile(filepath.Join(r.config.State, authoritiesFile), []byte("junk"), 0o600))
		r.start()
		trusts("with a broken file", r.ca)
		r.handle(r.authorities(7, next, next))
		trusts("the new one alone", next)
	})
}

// TestOneRushForOneAuthority has a server that goes on issuing with another key
// than it says.
func TestOneRushForOneAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		r.handle(r.authorities(1, identitytest.New(t), r.ca))
		m, _ := r.waitAsked()
		r.issue(m, r.ca)
		if _, after := r.waitAsked(); after < 10*day {
			t.Errorf("renewed again after %v", after)
		}
	})
}

func key(n byte) (k identity.KeyHash) { k[0] = n; return k }

func revocation(epoch uint64, k byte) wire.Revocation {
	return wire.Revocation{Revocation: identity.Revocation{Epoch: epoch, Key: key(k)}}
}

// B76: what is kept of the revocations is what was whole; the server is told from where on.
func TestRevocationsLastAndAreActedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		if held := r.held(); held != 0 {
			t.Errorf("it says that it holds up to %d", held)
		}
		for n := range byte(3) {
			r.handle(revocation(uint64(n)+1, n+1))
		}
		r.handle(wire.RevocationsComplete{Epoch: 3})
		if !slices.Contains(r.happened(), "revoked") {
			t.Error("nobody was told")
		}
		file := filepath.Join(r.config.State, revocationsFile)
		whole, err := os.ReadFile(file)
		r.must(err)
		r.stop()

		// Whatever a crash leaves of the file, what is whole counts, and the server
		// is told from where on.
		each := (len(whole) - len(magic)) / 3
		for n := range whole {
			r.must(os.WriteFile(file, whole[:n], 0o600))
			r.start()
			r.connect()
			want := uint64(max(0, n-len(magic)) / each)
			if held := r.held(); held != want {
				t.Fatalf("of %d bytes it holds up to %d, want %d", n, held, want)
			}
			r.handle(revocation(want+1, byte(want)+1))
			r.stop()
			if b, err := os.ReadFile(file); err != nil || want < 2 && !bytes.HasPrefix(whole, b) {
				t.Fatalf("of %d bytes: written on: %d bytes, %v", n, len(b), err)
			}
		}
		for _, at := range []int{0, len(magic), len(magic) + each + 10, len(whole) - 1} {
			b := slices.Clone(whole)
			b[at] ^= 0x40
			r.must(os.WriteFile(file, b, 0o600))
			r.start()
			if got, want := r.Credentials().Revocations().Epoch(), uint64(max(0, at-len(magic))/each); got != want {
				t.Errorf("byte %d altered: it holds up to %d, want %d", at, got, want)
			}
			r.stop()
		}
	})
}

func TestOwnRevocationIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		r.handle(revocation(1, 1))
		if log := r.logged(); strings.Contains(log, "own certificate") {
			t.Error(log)
		}
		r.handle(wire.Revocation{Revocation: identity.Revocation{Epoch: 2, Key: r.Credentials().Key()}})
		if log := r.logged(); !strings.Contains(log, "own certificate was revoked") {
			t.Error(log)
		}
	})
}

// B76: older revocations take nothing back.
func TestServerThatLostRevocationsIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.connect()
		for n := range byte(3) {
			r.handle(revocation(uint64(n)+1, n+1))
		}
		r.handle(wire.RevocationsComplete{Epoch: 3})
		if s := r.Status(); s.Regression != nil || s.Revocations != 3 {
			t.Errorf("status says %+v", s)
		}
		r.Lost()
		r.said()
		r.connect()
		r.handle(wire.RevocationsComplete{Epoch: 1})
		r.handle(revocation(2, 9)) // which the server has given anew
		r.handle(wire.RevocationsComplete{Epoch: 2})
		if s := r.Status(); s.Regression == nil || *s.Regression != 2 || len(s.Lines()) != 1 {
			t.Errorf("status says %+v", s)
		}
		if got, want := r.said(), []FromBoth{wire.RevocationsHeld{Epoch: 3}, wire.RevocationsHeld{}}; !slices.Equal(got, want) {
			t.Errorf("said %+v, want %+v", got, want)
		}
		if n := strings.Count(r.logged(), "epoch regression"); n != 1 {
			t.Errorf("said %d times", n)
		}
		if got := len(r.Credentials().Revocations().After(0)); got != 4 {
			t.Errorf("%d revocations are held, want the three and the new one", got)
		}
	})
}

// TestTimeIsLearned has a device that begins in the past: what a server tells counts
// for its credentials, and for the next start.
func TestTimeIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		told := time.Now().Add(48 * time.Hour)
		r.Told(told)
		if synctest.Wait(); r.Credentials().Now().Before(told) {
			t.Errorf("it is %v, and a server told %v", r.Credentials().Now(), told)
		}
		if off := r.Status().Clock; off != -48*time.Hour {
			t.Errorf("the clock is said to be %v ahead", off)
		}
		r.stop()
		r.start()
		if now := r.Credentials().Now(); now.Before(told) {
			t.Errorf("after a restart it is %v", now)
		}
	})
}

func TestWrongFilesAreRefused(t *testing.T) {
	r := newRig(t, nil)
	r.stop()
	r.must(os.Chmod(r.config.Key, 0o644))
	if _, err := Open(r.config); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	r.must(os.Chmod(r.config.Key, 0o600))
	r.must(os.WriteFile(filepath.Join(r.config.State, revocationsFile), make([]byte, maxLog+1), 0o600))
	if _, err := Open(r.config); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("revocations without end: %v", err)
	}
}
