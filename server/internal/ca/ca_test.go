package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/identity"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := New("example.org", clock)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// order is one for a new key.
func order(t *testing.T, role identity.Role, name string, days int) Order {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return Order{Role: role, Name: name, Public: key.Public(), Life: time.Duration(days) * day}
}

func issue(t *testing.T, a *Authority, role identity.Role, name string, days int) *x509.Certificate {
	t.Helper()
	chain, err := a.Issue(t.Context(), order(t, role, name, days))
	if err != nil {
		t.Fatal(err)
	}
	return chain[0]
}

func TestCertificateNamesOneIdentityAndMayDoWhatItsRoleDoes(t *testing.T) {
	a := authority(t)
	server, both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for role, usage := range map[identity.Role][]x509.ExtKeyUsage{identity.Server: server, identity.Portal: both, identity.Relay: both} {
		c := issue(t, a, role, "ann", 365)
		id, err := identity.FromCertificate(c)
		if want := (identity.ID{Domain: "example.org", Role: role, Name: "ann"}); err != nil || id != want {
			t.Errorf("%s: identity %v, %v", role, id, err)
		}
		if d := cmp.Diff(usage, c.ExtKeyUsage); d != "" {
			t.Errorf("%s: extended key usage (-want +got):\n%s", role, d)
		}
		if c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.UnknownExtKeyUsage) > 0 {
			t.Errorf("%s: it may do more than its role does: %+v", role, c)
		}
		if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: a key of type %T", role, c.PublicKey)
		}
		if err := c.CheckSignatureFrom(a.Certificate); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		if !c.NotBefore.Equal(now.Add(-time.Hour)) || !c.NotAfter.Equal(now.AddDate(1, 0, 0)) {
			t.Errorf("%s: valid from %v to %v", role, c.NotBefore, c.NotAfter)
		}
	}
}

func TestSerialNumbersAreLongAndDiffer(t *testing.T) {
	a := authority(t)
	seen := make(map[string]bool)
	for range 20 {
		n := issue(t, a, identity.Portal, "ann", 1).SerialNumber
		if n.Sign() <= 0 || n.BitLen() != 128 || seen[n.String()] {
			t.Errorf("serial number %v", n)
		}
		seen[n.String()] = true
	}
}

func TestWhatIsNotIssued(t *testing.T) {
	a := authority(t)
	for _, c := range []struct {
		role identity.Role
		name string
	}{{"king", "ann"}, {identity.Portal, ""}, {identity.Portal, "Ann"}, {identity.Portal, "a/b"}, {identity.Portal, strings.Repeat("a", 64)}} {
		if _, err := a.Issue(t.Context(), order(t, c.role, c.name, 1)); err == nil {
			t.Errorf("issued a certificate for %s %q", c.role, c.name)
		}
	}
}

func TestCertificateEndsWithItsAuthority(t *testing.T) {
	a := authority(t)
	a.now = func() time.Time { return now.Add(rootLife - 24*time.Hour) }
	if c := issue(t, a, identity.Portal, "ann", 365); !c.NotAfter.Equal(a.Certificate.NotAfter) {
		t.Errorf("it lasts until %v, the authority until %v", c.NotAfter, a.Certificate.NotAfter)
	}
	a.now = func() time.Time { return now.Add(rootLife + time.Hour) }
	if _, err := a.Issue(t.Context(), order(t, identity.Portal, "ann", 1)); err == nil || !strings.Contains(err.Error(), "the CA ended on 2036-11-19") {
		t.Errorf("an authority that has ended: %v", err)
	}
}

func TestAuthorityIsReadBack(t *testing.T) {
	a, other := authority(t), authority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	if err := os.WriteFile(cert, identity.EncodeCertificates(other.Certificate, a.Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := identity.SaveKey(key, a.Key()); err != nil {
		t.Fatal(err)
	}
	again, err := Load("example.org", cert, key, "", clock)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Certificate.Equal(a.Certificate) {
		t.Error("another certificate was taken for the key")
	}
	if err := issue(t, again, identity.Portal, "ann", 1).CheckSignatureFrom(a.Certificate); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(cert, identity.EncodeCertificates(other.Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load("example.org", cert, key, "", clock); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("the certificate of another key: %v", err)
	}
}
