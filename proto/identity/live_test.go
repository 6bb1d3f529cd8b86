package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRenewalHoldsForTheNextHandshake has configurations that were made before it.
func TestRenewalHoldsForTheNextHandshake(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	p, s := newLeaf(t, &ca, Portal, "p", nil), newLeaf(t, &ca, Server, "s", nil)
	client, server := credentials(t, p.with(), p.key, ca), credentials(t, s.with(), s.key, ca)
	ours, theirs := client.ClientTLS(ProtocolControl, anyone), server.ServerTLS(ProtocolControl, anyone)
	seen := func() KeyHash {
		t.Helper()
		_, d, cerr, derr := shake(t, ours, theirs)
		if cerr != nil || derr != nil {
			t.Fatal(cerr, derr)
		}
		peer, err := PeerOf(d.ConnectionState())
		if err != nil {
			t.Fatal(err)
		}
		return peer.Key
	}
	if seen() != HashKey(p.cert) {
		t.Fatal("another key was proven")
	}
	next := newLeaf(t, &ca, Portal, "p", nil)
	if err := client.Renew(next.with(), next.key); err != nil {
		t.Fatal(err)
	}
	if seen() != HashKey(next.cert) || client.Key() != HashKey(next.cert) || !client.Leaf().Equal(next.cert) {
		t.Error("the old key was proven after the renewal")
	}
	again := certificate(t, &ca, next.key, x509.Certificate{URIs: next.cert.URIs, ExtKeyUsage: bothUsages}, nil)
	if err := client.Renew(again.with(), nil); err != nil || !client.Leaf().Equal(again.cert) {
		t.Errorf("a certificate for the key that is held: %v", err)
	}

	for name, tt := range map[string]struct {
		with holder
		want string
	}{
		"another's":     {newLeaf(t, &ca, Portal, "q", nil), "is of spiffe://example.org/portal/q"},
		"another role":  {newLeaf(t, &ca, Relay, "p", nil), "is of spiffe://example.org/relay/p"},
		"another's key": {holder{next.cert, p.key}, "not the one of this certificate"},
	} {
		wantError(t, name, client.Renew(tt.with.with(), tt.with.key), tt.want)
		if !client.Leaf().Equal(again.cert) {
			t.Errorf("%s: it is in use", name)
		}
	}
}

func TestTrustHoldsForTheNextHandshake(t *testing.T) {
	old, next := newCA(t, nil, "Old", nil), newCA(t, nil, "New", nil)
	p, q, s := newLeaf(t, &old, Portal, "p", nil), newLeaf(t, &next, Portal, "q", nil), newLeaf(t, &old, Server, "s", nil)
	server := credentials(t, s.with(), s.key, old)
	both := []*x509.Certificate{old.cert, next.cert}
	dial := func(h holder) error {
		c, err := NewCredentials(h.with(), h.key, both, testClock)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = shake(t, c.ClientTLS(ProtocolControl, anyone), server.ServerTLS(ProtocolControl, anyone))
		return err
	}
	for _, tt := range []struct {
		trust  []*x509.Certificate
		p, q   bool
		step   string
		errors bool
	}{
		{both[:1], true, false, "the old one", false},
		{both, true, true, "both", false},
		{both[1:], false, true, "the new one", false},
		{nil, false, true, "none: nothing changes", true},
		{[]*x509.Certificate{p.cert}, false, true, "a leaf: nothing changes", true},
	} {
		if err := server.Trust(tt.trust); (err != nil) != tt.errors {
			t.Errorf("%s: %v", tt.step, err)
		}
		if err := dial(p); (err == nil) != tt.p {
			t.Errorf("%s is trusted: who has an old certificate: %v", tt.step, err)
		}
		if err := dial(q); (err == nil) != tt.q {
			t.Errorf("%s is trusted: who has a new certificate: %v", tt.step, err)
		}
	}
	if err := server.Recheck(p.with()); err != nil {
		t.Errorf("what was accepted under an authority that was dropped since: %v", err)
	}
}

// TestRevocationsOfEachKind (T23, B72, B73) says for each kind whom it hits, in the next handshake
// and of those that were accepted before.
func TestRevocationsOfEachKind(t *testing.T) {
	root, other := newCA(t, nil, "Root", nil), newCA(t, nil, "Other", nil)
	middle, sibling := newCA(t, &root, "Middle", nil), newCA(t, &root, "Sibling", nil)
	at := func(begin time.Time, serial int64) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.SerialNumber = begin, big.NewInt(serial) }
	}
	ann := newLeaf(t, &middle, Portal, "ann", at(testNow.Add(-time.Hour), 7))
	annAgain := newLeaf(t, &middle, Portal, "ann", at(testNow.Add(-time.Minute), 8))
	bo := newLeaf(t, &sibling, Portal, "bo", at(testNow.Add(-time.Hour), 7))
	relay := newLeaf(t, &root, Relay, "ann", at(testNow.Add(-time.Hour), 9))
	cy := newLeaf(t, &other, Portal, "cy", at(testNow.Add(-time.Hour), 7))
	all := map[string][]*x509.Certificate{
		"ann": ann.with(middle), "ann again": annAgain.with(middle), "bo": bo.with(sibling), "relay ann": relay.with(), "cy": cy.with(),
	}
	keys := map[string]holder{"ann": ann, "ann again": annAgain, "bo": bo, "relay ann": relay, "cy": cy}
	s := newLeaf(t, &other, Server, "s", nil)
	for _, tt := range []struct {
		name string
		r    Revocation
		hit  string // names, in order
	}{
		{"a name", Revocation{Role: Portal, Name: "ann", Before: testNow.Add(-30 * time.Minute)}, "ann"},
		{"a name up to now", Revocation{Role: Portal, Name: "ann", Before: testNow}, "ann, ann again"},
		{"a name to the second", Revocation{Role: Portal, Name: "ann", Before: testNow.Add(-time.Minute)}, "ann"},
		{"a relay's name", Revocation{Role: Relay, Name: "ann", Before: testNow}, "relay ann"},
		{"a leaf's key", Revocation{Key: HashKey(ann.cert)}, "ann"},
		{"an intermediate's key", Revocation{Key: HashKey(middle.cert)}, "ann, ann again"},
		{"a root's key", Revocation{Key: HashKey(root.cert)}, "ann, ann again, bo, relay ann"},
		{"one certificate", Revocation{Issuer: HashKey(middle.cert), Serial: "\x07"}, "ann"},
		{"an intermediate's certificate", Revocation{Issuer: HashKey(root.cert), Serial: string(middle.cert.SerialNumber.Bytes())}, "ann, ann again, bo"}, // siblings have one serial here
		{"a serial of another authority", Revocation{Issuer: HashKey(s.cert), Serial: "\x07"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, err := NewCredentials(s.with(), s.key, []*x509.Certificate{root.cert, other.cert}, testClock)
			if err != nil {
				t.Fatal(err)
			}
			tt.r.Epoch = 1
			for _, revoked := range []bool{false, true} {
				var dialled, held []string
				for _, name := range []string{"ann", "ann again", "bo", "relay ann", "cy"} {
					client, err := NewCredentials(all[name], keys[name].key, []*x509.Certificate{other.cert}, testClock)
					if err != nil {
						t.Fatal(err)
					}
					_, _, _, err = shake(t, client.ClientTLS(ProtocolControl, anyone), server.ServerTLS(ProtocolControl, anyone))
					if errors.Is(err, ErrRevoked) {
						dialled = append(dialled, name)
					} else if err != nil {
						t.Fatal(err)
					}
					if err := server.Recheck(all[name]); errors.Is(err, ErrRevoked) {
						held = append(held, name)
					}
				}
				want := ""
				if revoked {
					want = tt.hit
				}
				if got := strings.Join(dialled, ", "); got != want {
					t.Errorf("revoked %t: refused in the handshake: %q, want %q", revoked, got, want)
				}
				if got := strings.Join(held, ", "); got != want {
					t.Errorf("revoked %t: of those accepted before: %q, want %q", revoked, got, want)
				}
				if err := server.Revocations().Add(tt.r); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestOneGoodChainIsEnough has a new root that the old one vouches for too, and the
// old one revoked.
func TestOneGoodChainIsEnough(t *testing.T) {
	old, next := newCA(t, nil, "Old", nil), newCA(t, nil, "New", nil)
	cross := certificate(t, &old, next.key, x509.Certificate{Subject: next.cert.Subject, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	p, s := newLeaf(t, &next, Portal, "p", nil), newLeaf(t, &next, Server, "s", nil)
	server := credentials(t, s.with(), s.key, next)
	if err := server.Trust([]*x509.Certificate{old.cert, next.cert}); err != nil {
		t.Fatal(err)
	}
	client := credentials(t, p.with(cross), p.key, next)
	dial := func() error {
		_, _, _, err := shake(t, client.ClientTLS(ProtocolControl, anyone), server.ServerTLS(ProtocolControl, anyone))
		return err
	}
	for _, r := range []Revocation{{}, {Epoch: 1, Key: HashKey(old.cert)}} {
		if r.Epoch > 0 {
			server.Revocations().Add(r)
		}
		if err := dial(); err != nil {
			t.Errorf("with %d revocations: %v", r.Epoch, err)
		}
	}
	server.Revocations().Add(Revocation{Epoch: 2, Key: HashKey(next.cert)})
	if err := dial(); !errors.Is(err, ErrRevoked) {
		t.Errorf("with both revoked: %v", err)
	}
}

func TestRevocationsAreKeptInOrderAndWithinBounds(t *testing.T) {
	var s Revocations
	if s.Epoch() != 0 || s.After(0) != nil || s.Check([][]*x509.Certificate{{{}}}) != nil {
		t.Error("the empty set holds something")
	}
	key := func(n int) (k KeyHash) { k[0], k[1], k[2] = byte(n>>16), byte(n>>8), byte(n); k[31] = 1; return k }
	list := []Revocation{
		{Epoch: 3, Key: key(3)},
		{Epoch: 1, Role: Portal, Name: "ann", Before: testNow},
		{Epoch: 2, Issuer: key(1), Serial: "\x01"},
	}
	if err := s.Add(list...); err != nil {
		t.Fatal(err)
	}
	s.Add(Revocation{Epoch: 4, Role: Portal, Name: "ann", Before: testNow.Add(-time.Hour)}) // which says less
	got := fmt.Sprint(s.After(0))
	if want := fmt.Sprint([]Revocation{list[1], list[2], list[0]}); got != want || s.Epoch() != 4 {
		t.Errorf("epoch %d, %s; want %s", s.Epoch(), got, want)
	}
	if n := len(s.After(2)); n != 1 {
		t.Errorf("%d after epoch 2", n)
	}
	for name, r := range map[string]Revocation{
		"nothing":           {Epoch: 1},
		"no epoch":          {Key: key(1)},
		"two things":        {Epoch: 1, Key: key(1), Role: Portal, Name: "ann", Before: testNow},
		"a name of no role": {Epoch: 1, Name: "ann", Before: testNow},
		"a name for ever":   {Epoch: 1, Role: Portal, Name: "ann"},
		"half a second":     {Epoch: 1, Role: Portal, Name: "ann", Before: testNow.Add(time.Second / 2)},
		"no serial":         {Epoch: 1, Issuer: key(1)},
		"a long serial":     {Epoch: 1, Issuer: key(1), Serial: strings.Repeat("x", MaxSerial+1)},
	} {
		if s.Add(r) == nil {
			t.Errorf("%s was added", name)
		}
	}

	var full Revocations
	var adding sync.WaitGroup
	for part := range 2 {
		adding.Go(func() {
			for n := range MaxRevocations / 2 {
				if err := full.Add(Revocation{Epoch: uint64(n + 1), Key: key(2*n + part + 1)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	adding.Wait()
	wantError(t, "one more than the most", full.Add(Revocation{Epoch: 1 << 20, Key: key(1 << 22)}), "more than 100000")
	if err := full.Add(Revocation{Epoch: 1, Key: key(1)}); err != nil {
		t.Errorf("one that is held: %v", err)
	}
	if n := len(full.After(0)); n != MaxRevocations {
		t.Errorf("%d are held", n)
	}
}
