package daemon

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

// B65-B71: certificates that openssl has made for the very key that is enrolled, under the
// very CA: nothing is wrong with them but their form.
func TestCertificatesThatOpenSSLForged(t *testing.T) {
	r := newRig(t, "ann", "witness")
	f := identitytest.NewForger(t)
	ann := r.credentials["ann"]
	key := ann.Certificate().PrivateKey.(crypto.Signer)
	if err := identity.SaveKey(f.File("ann.key"), key); err != nil {
		t.Fatal(err)
	}
	f.Copy("ca.pem", r.cfg.CA)
	f.Copy("ca.key", r.cfg.CAKey)
	const uri = "subjectAltName=URI:spiffe://example.org/portal/ann\n"
	f.Sign("good", "ann", "ca", uri+identitytest.BothUsages)
	if !greeted(r, ann, f.Load(key, "good")) {
		t.Fatal("a certificate that is right is not greeted: the others prove nothing")
	}

	forged := identitytest.OddNames("portal", "ann")
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "URI.%d=spiffe://example.org/portal/p%d\n", i+1, i)
	}
	maps.Copy(forged, map[string]string{
		"10,000 identities":           "subjectAltName=@many\n" + identitytest.BothUsages + "[many]\n" + many.String(),
		"role server":                 strings.Replace(uri, "portal", "server", 1) + identitytest.BothUsages,
		"role admin":                  strings.Replace(uri, "portal", "admin", 1) + identitytest.BothUsages,
		"role relay":                  strings.Replace(uri, "portal", "relay", 1) + identitytest.BothUsages,
		"no usage":                    uri,
		"only for servers":            uri + "extendedKeyUsage=serverAuth\n",
		"for e-mail":                  uri + "extendedKeyUsage=emailProtection\n",
		"for anything":                uri + "extendedKeyUsage=anyExtendedKeyUsage\n",
		"for anything besides":        uri + "extendedKeyUsage=clientAuth,serverAuth,anyExtendedKeyUsage\n",
		"a CA":                        uri + identitytest.BothUsages + "basicConstraints=critical,CA:TRUE\n",
		"an unknown critical element": uri + identitytest.BothUsages + "1.2.3.4.5=critical,DER:0500\n",
	})
	for name, extensions := range forged {
		f.Sign("forged", "ann", "ca", extensions)
		if greeted(r, ann, f.Load(key, "forged")) {
			t.Errorf("%s: greeted", name)
		}
	}

	// Chains that lead elsewhere.
	const authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n"
	f.Key("other")
	own, err := identity.LoadCertificates(r.cfg.CA)
	if err != nil {
		t.Fatal(err)
	}
	f.OpenSSL("req", "-x509", "-key", "other.key", "-subj", "/CN="+strings.ReplaceAll(own[0].Subject.CommonName, ",", "\\,"), "-days", "1", "-out", "other.pem",
		"-addext", "subjectKeyIdentifier="+fmt.Sprintf("%x", own[0].SubjectKeyId))
	f.Key("middle")
	f.Key("below")
	f.Sign("middle", "middle", "ca", authority+"")
	f.Sign("narrow", "middle", "ca", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n")
	f.Copy("narrow.key", f.File("middle.key"))
	f.Sign("below", "below", "narrow", authority)
	f.Sign("leaf", "middle", "ca", uri+identitytest.BothUsages) // a portal's certificate, used to sign
	f.Copy("leaf.key", f.File("middle.key"))
	for name, c := range map[string]struct {
		ca    string
		chain []string
		want  bool
	}{
		"self-signed":                              {"", nil, false},
		"another CA of the same name and key id":   {"other", nil, false},
		"the same, sent along":                     {"other", []string{"other"}, false},
		"an intermediate of our CA":                {"middle", []string{"middle"}, true},
		"an intermediate that is not sent":         {"middle", nil, false},
		"below one that may have nothing below it": {"below", []string{"below", "narrow"}, false},
		"signed by a portal":                       {"leaf", []string{"leaf"}, false},
	} {
		f.Sign("chained", "ann", c.ca, uri+identitytest.BothUsages)
		if got := greeted(r, ann, f.Load(key, append([]string{"chained"}, c.chain...)...)); got != c.want {
			t.Errorf("%s: greeted = %t, want %t", name, got, c.want)
		}
	}

	// Keys and signatures.
	for name, c := range map[string]struct {
		generate []string
		options  []string
	}{
		"RSA of 1,024 bits":   {[]string{"RSA", "-pkeyopt", "rsa_keygen_bits:1024"}, nil},
		"P-224":               {[]string{"EC", "-pkeyopt", "ec_paramgen_curve:secp224r1"}, nil},
		"P-521":               {[]string{"EC", "-pkeyopt", "ec_paramgen_curve:secp521r1"}, nil},
		"secp256k1":           {[]string{"EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"}, nil},
		"Ed448":               {[]string{"ED448"}, nil},
		"signed with SHA-1":   {[]string{"EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, []string{"-days", "1", "-sha1"}},
		"a key of a stranger": {[]string{"EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, nil},
	} {
		f.Key("weak", c.generate...)
		f.Sign("weak", "weak", "ca", uri+identitytest.BothUsages, c.options...)
		signer := crypto.PrivateKey(key) // where Go has no such key, the chain is judged first
		if b, err := os.ReadFile(f.File("weak.key")); err == nil {
			if block, _ := pem.Decode(b); block != nil {
				if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
					signer = k
				}
			}
		}
		begin := time.Now()
		if greeted(r, ann, f.Load(signer, "weak")) {
			t.Errorf("%s: greeted", name)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
	r.wantServing()
}
