package ca

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// takes reports whether who trusts only these authorities takes the chain.
func takes(chain []*x509.Certificate, trusted ...*x509.Certificate) error {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range trusted {
		opts.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err
}

func (b Bundle) leaf(t *testing.T, key *Authority) []*x509.Certificate {
	t.Helper()
	a, err := Use("example.org", b.Issuer, b.Above, key.Key(), clock)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Issue(t.Context(), order(t, identity.Portal, "ann", 1))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestRollOverIsTakenByWhoHasNotHeardOfIt(t *testing.T) {
	old, next := authority(t), authority(t)
	first := First([]*x509.Certificate{old.Certificate}, old.Certificate)
	if len(first.Above) > 0 || first.Version != 1 {
		t.Fatalf("first: %+v", first)
	}
	before := first.leaf(t, old)
	vouched, err := old.Vouch(next.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	both, err := first.Install([]*x509.Certificate{next.Certificate}, "ca-2.key", vouched, now)
	if err != nil {
		t.Fatal(err)
	}
	if both.Version != 2 || len(both.Trusted) != 2 || both.Issuing != identity.HashKey(next.Certificate) {
		t.Fatalf("both: %+v", both)
	}
	after := both.leaf(t, next)
	for what, c := range map[string]struct {
		chain   []*x509.Certificate
		trusted []*x509.Certificate
		want    bool
	}{
		"old leaf, who knows both":           {before, both.Trusted, true},
		"new leaf, who knows both":           {after, both.Trusted, true},
		"new leaf, who knows only the old":   {after, []*x509.Certificate{old.Certificate}, true},
		"new leaf, who knows only the new":   {after, []*x509.Certificate{next.Certificate}, true},
		"old leaf, who knows only the new":   {before, []*x509.Certificate{next.Certificate}, false},
		"new leaf alone, who knows only old": {after[:1], []*x509.Certificate{old.Certificate}, false},
	} {
		if err := takes(c.chain, c.trusted...); (err == nil) != c.want {
			t.Errorf("%s: %v", what, err)
		}
	}
	text, err := both.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseBundle(text)
	if err != nil || again.Version != 2 || again.KeyFile != "ca-2.key" || !again.Issuer.Equal(next.Certificate) || len(again.Above) != 1 || len(again.Trusted) != 2 {
		t.Fatalf("read back: %+v, %v", again, err)
	}
	if _, err := both.Drop(identity.HashKey(next.Certificate)); err == nil || !strings.Contains(err.Error(), "the authority that issues rests on it") {
		t.Errorf("the issuing authority was dropped: %v", err)
	}
	last, err := both.Drop(identity.HashKey(old.Certificate))
	if err != nil || last.Version != 3 || len(last.Trusted) != 1 || len(last.Above) != 0 {
		t.Fatalf("dropped: %+v, %v", last, err)
	}
	if _, err := last.Drop(identity.HashKey(next.Certificate)); err == nil {
		t.Error("the only authority was dropped")
	}
	if _, err := last.Drop(identity.HashKey(old.Certificate)); err == nil {
		t.Error("dropped twice")
	}
}

func TestIntermediateOfAnOfflineRoot(t *testing.T) {
	root, elsewhere := authority(t), authority(t)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := NewRequest("example.org", key, now)
	if err != nil {
		t.Fatal(err)
	}
	request, err := ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	middle, err := root.Sign(request, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !middle.IsCA || middle.MaxPathLen != 1 || !middle.NotAfter.Equal(now.Add(middleLife)) {
		t.Errorf("intermediate: CA %v, path %d, until %v", middle.IsCA, middle.MaxPathLen, middle.NotAfter)
	}
	own := &Authority{key: key}
	for what, first := range map[string]Bundle{
		"the same root":   First([]*x509.Certificate{root.Certificate}, root.Certificate),
		"another root":    First([]*x509.Certificate{elsewhere.Certificate}, elsewhere.Certificate),
		"nothing is here": First([]*x509.Certificate{root.Certificate}, nil),
	} {
		var vouched *x509.Certificate
		if what == "another root" {
			if vouched, err = elsewhere.Vouch(middle); err != nil {
				t.Fatal(err)
			}
		}
		b, err := first.Install([]*x509.Certificate{middle, root.Certificate}, "ca-2.key", vouched, now)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		chain := b.leaf(t, own)
		for _, who := range slices.Concat(first.Trusted, b.Trusted) {
			if err := takes(chain, who); err != nil {
				t.Errorf("%s: who trusts %s: %v", what, who.Subject.CommonName, err)
			}
		}
		if len(chain) > identity.MaxChain-1 {
			t.Errorf("%s: a chain of %d, with no room for the root", what, len(chain))
		}
	}
	first := First([]*x509.Certificate{elsewhere.Certificate}, elsewhere.Certificate)
	leaf := issue(t, root, identity.Portal, "ann", 1)
	for what, chain := range map[string][]*x509.Certificate{
		"nothing":            nil,
		"a leaf":             {leaf, root.Certificate},
		"no root":            {middle},
		"the root of others": {middle, elsewhere.Certificate},
	} {
		if _, err := first.Install(chain, "", nil, now); err == nil {
			t.Errorf("%s: installed", what)
		}
	}
	if _, err := first.Install([]*x509.Certificate{middle, root.Certificate}, "", nil, now.Add(3*365*day)); err == nil {
		t.Error("an intermediate that has ended was installed")
	}
	// An intermediate signs no intermediate that could sign another.
	below, err := Use("example.org", middle, nil, key, clock)
	if err != nil {
		t.Fatal(err)
	}
	if lower, err := below.Sign(request, time.Hour); err != nil || lower.MaxPathLen != 0 || !lower.MaxPathLenZero {
		t.Errorf("below the intermediate: %v, %v", lower, err)
	}
	for _, text := range []string{"", "x", string(text) + "x", strings.Replace(string(text), "A", "B", 3)} {
		if _, err := ParseRequest([]byte(text)); err == nil {
			t.Errorf("taken for a request: %.60q", text)
		}
	}
}

func TestAuthoritiesAreTrustedOnce(t *testing.T) {
	own, other := authority(t), authority(t)
	b := First([]*x509.Certificate{own.Certificate}, own.Certificate)
	next, err := b.Trust([]*x509.Certificate{other.Certificate}, now)
	if err != nil || !next.Has(identity.HashKey(other.Certificate)) || next.Version != 2 || next.Issuing != b.Issuing {
		t.Fatalf("%+v, %v", next, err)
	}
	for what, list := range map[string][]*x509.Certificate{
		"again":  {other.Certificate},
		"a leaf": {issue(t, own, identity.Portal, "ann", 1)},
		"too many": func() (many []*x509.Certificate) {
			for range MaxTrusted {
				many = append(many, authority(t).Certificate)
			}
			return many
		}(),
	} {
		if _, err := next.Trust(list, now); err == nil {
			t.Errorf("%s: trusted", what)
		}
	}
	if got := next.Valid(now.Add(rootLife + time.Hour)); len(got) != 0 {
		t.Errorf("%d authorities are valid after their end", len(got))
	}
}
