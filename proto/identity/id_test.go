package identity

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		ok   bool
	}{
		{"a", true}, {"0", true}, {"a.b", true}, {"a-b", true}, {"a--b..c", true}, {"plc-7.hall.example", true},
		{strings.Repeat("a", 63), true},
		{"", false},
		{strings.Repeat("a", 64), false}, {strings.Repeat("a", 255), false}, {strings.Repeat("a", 256), false}, {strings.Repeat("a", 65535), false},
		{"A", false}, {"aB", false}, {"a.", false}, {".a", false}, {"-a", false}, {"a-", false}, {".", false}, {"..", false},
		{"../x", false}, {"a/b", false}, {"*", false}, {"*.a", false}, {"a b", false}, {" a", false}, {"a ", false},
		{"a_b", false}, {"a:b", false}, {"a@b", false}, {"a%2fb", false}, {"a\x00b", false}, {"a\nb", false}, {"a\r", false}, {"a\x1b[2J", false},
		{"\u00e4", false}, {"a\u202eb", false}, {"xn--\u00e4", false}, {"a\xff", false}, {"\xc0\x80", false}, {"\uff41", false}, {"\u0430", false},
	} {
		if err := CheckName(tt.name); (err == nil) != tt.ok {
			t.Errorf("name %.80q: %v, want accepted %v", tt.name, err, tt.ok)
		}
	}
}

// oddURIs are writings of spiffe://example.org/portal/a, and other things,
// that are not its one form.
var oddURIs = []string{
	"", "spiffe://", "spiffe:///portal/a", "spiffe://example.org", "spiffe://example.org/", "spiffe://example.org/portal", "spiffe://example.org/portal/",
	"SPIFFE://example.org/portal/a", "Spiffe://example.org/portal/a", "spiffe://EXAMPLE.org/portal/a", "spiffe://example.org/Portal/a", "spiffe://example.org/portal/A",
	"spiffe://example.org/portal/a/", "spiffe://example.org//portal/a", "spiffe://example.org/portal//a", "spiffe://example.org/portal/a/b",
	"spiffe://example.org/portal/../server/a", "spiffe://example.org/portal/.", "spiffe://example.org/./portal/a",
	"spiffe://example.org:443/portal/a", "spiffe://example.org:/portal/a", "spiffe://user@example.org/portal/a", "spiffe://@example.org/portal/a",
	"spiffe://example.org/portal/a?x=1", "spiffe://example.org/portal/a?", "spiffe://example.org/portal/a#f", "spiffe://example.org/portal/a#",
	"spiffe://example.org/portal/%61", "spiffe://example.org/portal/a%2fb", "spiffe://example.org%2fportal/a", "spiffe://%65xample.org/portal/a",
	"spiffe://example.org./portal/a", "spiffe://.example.org/portal/a", "spiffe://[::1]/portal/a",
	"spiffe:example.org/portal/a", "spiffe:/example.org/portal/a", "https://example.org/portal/a", "//example.org/portal/a", "example.org/portal/a",
	" spiffe://example.org/portal/a", "spiffe://example.org/portal/a ", "spiffe://example.org/portal/a\n", "spiffe://example.org/portal/a\x00", "spiffe://example.org/portal/a\x00.evil",
	"spiffe://example.org/portal/*", "spiffe://*/portal/a", "spiffe://example.org/*/a", "spiffe://example.org/gate/a", "spiffe://example.org/portal/a_b",
	"spiffe://example.org/portal/" + strings.Repeat("a", 64), "spiffe://" + strings.Repeat("a", 64) + "/portal/a", "spiffe://example.org/portal/" + strings.Repeat("a", 65536),
	"spiffe://example.org\\portal\\a",
}

func TestOnlyOneWritingOfAnIdentityIsRead(t *testing.T) {
	want := ID{"example.org", Portal, "a"}
	id, err := Parse("spiffe://example.org/portal/a")
	if err != nil || id != want || id.String() != "spiffe://example.org/portal/a" || id.URL().String() != id.String() {
		t.Fatalf("got %v, %v", id, err)
	}
	for _, s := range oddURIs {
		id, err := Parse(s)
		if err == nil || id != (ID{}) {
			t.Errorf("%.100q was read as %v", s, id)
		} else if len(err.Error()) > 1024 || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("%.100q: the error has %d bytes or control characters", s, len(err.Error()))
		}
	}
	for _, role := range []Role{"", "Portal", "root"} {
		if _, err := New("example.org", role, "a"); err == nil {
			t.Errorf("role %q was taken", role)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://example.org/portal/a")
	f.Add("spiffe://e/relay/a-1.b")
	for _, s := range oddURIs {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := Parse(s); err == nil && (id.String() != s || id.URL().String() != s) {
			t.Fatalf("%q was read as %q", s, id)
		}
	})
}

// TestOddIdentitiesInCertificates (T21, B68) puts the odd writings and odd combinations of
// names into signed certificates: what crypto/x509 still reads, we refuse.
func TestOddIdentitiesInCertificates(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	key := newKey(t)
	const good = "spiffe://example.org/portal/a"
	const dns, email, ip, directory, registered, other = 2, 1, 7, 4, 8, 0
	names := map[string][]asn1.RawValue{
		"none":                  {},
		"two identities":        {uriName(good), uriName("spiffe://example.org/portal/b")},
		"the same twice":        {uriName(good), uriName(good)},
		"DNS name only":         {generalName(dns, "a")},
		"DNS name beside":       {uriName(good), generalName(dns, "a")},
		"IP address beside":     {generalName(ip, "\x7f\x00\x00\x01"), uriName(good)},
		"e-mail beside":         {uriName(good), generalName(email, "a@example.org")},
		"registered id beside":  {uriName(good), generalName(registered, "\x2a\x03")},
		"directory beside":      {uriName(good), {Class: 2, Tag: directory, IsCompound: true, Bytes: []byte{0x30, 0}}},
		"other name beside":     {uriName(good), {Class: 2, Tag: other, IsCompound: true, Bytes: []byte{6, 2, 0x2a, 3, 0xa0, 2, 5, 0}}},
		"URI as IA5String":      {{Class: 0, Tag: 22, Bytes: []byte(good)}},
		"URI under another tag": {generalName(dns, good)},
	}
	for _, s := range oddURIs {
		names[s] = []asn1.RawValue{uriName(s)}
	}
	var many []asn1.RawValue
	for i := range 10000 {
		many = append(many, uriName(fmt.Sprintf("spiffe://example.org/portal/p%d", i)))
	}
	names["10,000 names"] = many
	names["good"] = []asn1.RawValue{uriName(good)}

	for name, list := range names {
		template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: testNow, NotAfter: testNow.AddDate(1, 0, 0)}
		template.Subject.CommonName = "spiffe://example.org/portal/a"
		template.ExtraExtensions = append(template.ExtraExtensions, sanExtension(t, list...))
		der, err := x509.CreateCertificate(rand.Reader, &template, ca.cert, key.Public(), ca.key)
		if err != nil {
			t.Fatalf("%.80q: %v", name, err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue // crypto/x509 refuses it: no handshake gets so far
		}
		id, err := FromCertificate(cert)
		if name == "good" {
			if want := (ID{"example.org", Portal, "a"}); err != nil || id != want {
				t.Errorf("good: got %v, %v", id, err)
			}
			continue
		}
		if err == nil || id != (ID{}) {
			t.Errorf("%.80q: read as %v", name, id)
		}
	}
	bare := certificate(t, &ca, key, x509.Certificate{}, func(c *x509.Certificate) { c.Subject.CommonName = good })
	if id, err := FromCertificate(bare.cert); err == nil {
		t.Errorf("a common name alone was read as %v", id)
	}
}

func TestKeyHashIsTextAsItIsBytes(t *testing.T) {
	h := HashKey(newCA(t, nil, "CA", nil).cert)
	b, _ := h.MarshalText()
	var got KeyHash
	if err := got.UnmarshalText(b); err != nil || got != h || h.IsZero() || len(b) != 64 {
		t.Errorf("%s came back as %s, %v", b, got, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("key hash %q was taken", bad)
		}
	}
}
