package daemon

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// forger makes certificates with openssl, which puts into them what it is told.
type forger struct {
	t   *testing.T
	dir string
}

func (f *forger) in(name string) string { return filepath.Join(f.dir, name) }

func (f *forger) write(name, text string) string {
	f.t.Helper()
	if err := os.WriteFile(f.in(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.in(name)
}

func (f *forger) openssl(args ...string) {
	f.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sign makes a certificate for a key under a CA; both are files without their endings.
func (f *forger) sign(name, key, ca, extensions string, options ...string) {
	f.t.Helper()
	f.openssl("req", "-new", "-key", key+".key", "-subj", "/CN=ann", "-out", name+".csr")
	args := []string{"x509", "-req", "-in", name + ".csr", "-out", name + ".pem", "-extfile", f.write(name+".ext", extensions)}
	if ca == "" {
		args = append(args, "-signkey", key+".key")
	} else {
		args = append(args, "-CA", ca+".pem", "-CAkey", ca+".key")
	}
	if len(options) == 0 || options[0] != "-days" {
		args = append(args, "-days", "1")
	}
	f.openssl(append(args, options...)...)
}

// load reads certificates as they are, whatever crypto/x509 thinks of them.
func (f *forger) load(key crypto.PrivateKey, names ...string) tls.Certificate {
	f.t.Helper()
	cert := tls.Certificate{PrivateKey: key}
	for _, name := range names {
		b, err := os.ReadFile(f.in(name + ".pem"))
		if err != nil {
			f.t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return cert
}

// B65-B71: certificates that openssl has made for the very key that is enrolled, under the
// very CA: nothing is wrong with them but their form.
func TestCertificatesThatOpenSSLForged(t *testing.T) {
	r := newRig(t, "ann", "witness")
	f := &forger{t, t.TempDir()}
	ann := r.credentials["ann"]
	key := ann.Certificate().PrivateKey.(crypto.Signer)
	if err := identity.SaveKey(f.in("ann.key"), key); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"ca.pem": r.cfg.CA, "ca.key": r.cfg.CAKey} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f.write(name, string(b))
	}
	const (
		both = "extendedKeyUsage=clientAuth,serverAuth\n"
		uri  = "subjectAltName=URI:spiffe://example.org/portal/ann\n"
	)
	san := func(text string) string { return "subjectAltName=" + text + "\n" + both }
	f.sign("good", "ann", "ca", uri+both)
	if !greeted(r, ann, f.load(key, "good")) {
		t.Fatal("a certificate that is right is not greeted: the others prove nothing")
	}

	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "URI.%d=spiffe://example.org/portal/p%d\n", i+1, i)
	}
	for name, extensions := range map[string]string{
		"only a CN":                   both,
		"a DNS name":                  san("DNS:ann"),
		"a DNS name beside":           san("URI:spiffe://example.org/portal/ann,DNS:ann"),
		"an e-mail address":           san("email:ann@example.org"),
		"an IP address beside":        san("URI:spiffe://example.org/portal/ann,IP:127.0.0.1"),
		"another name form":           san("otherName:1.2.3.4;UTF8:ann"),
		"two identities":              san("URI:spiffe://example.org/portal/ann,URI:spiffe://example.org/portal/bo"),
		"the same twice":              san("URI:spiffe://example.org/portal/ann,URI:spiffe://example.org/portal/ann"),
		"a port":                      san("URI:spiffe://example.org:443/portal/ann"),
		"a query":                     san("URI:spiffe://example.org/portal/ann?x"),
		"a user":                      san("URI:spiffe://root@example.org/portal/ann"),
		"a coded slash":               san("URI:spiffe://example.org/portal%2fann"),
		"a coded letter":              san("URI:spiffe://example.org/portal/%61nn"),
		"an upper-case scheme":        san("URI:SPIFFE://example.org/portal/ann"),
		"an upper-case domain":        san("URI:spiffe://Example.org/portal/ann"),
		"an upper-case name":          san("URI:spiffe://example.org/portal/Ann"),
		"a slash at the end":          san("URI:spiffe://example.org/portal/ann/"),
		"a dot at the end":            san("URI:spiffe://example.org/portal/ann."),
		"a wildcard":                  san("URI:spiffe://example.org/portal/*"),
		"another scheme":              san("URI:https://example.org/portal/ann"),
		"another domain":              san("URI:spiffe://example.com/portal/ann"),
		"a domain that ends like it":  san("URI:spiffe://xexample.org/portal/ann"),
		"role server":                 san("URI:spiffe://example.org/server/ann"),
		"role admin":                  san("URI:spiffe://example.org/admin/ann"),
		"role relay":                  san("URI:spiffe://example.org/relay/ann"),
		"no role":                     san("URI:spiffe://example.org/ann"),
		"a path below":                san("URI:spiffe://example.org/portal/ann/x"),
		"10,000 identities":           "subjectAltName=@many\n" + both + "[many]\n" + many.String(),
		"no usage":                    uri,
		"only for servers":            uri + "extendedKeyUsage=serverAuth\n",
		"for e-mail":                  uri + "extendedKeyUsage=emailProtection\n",
		"for anything":                uri + "extendedKeyUsage=anyExtendedKeyUsage\n",
		"for anything besides":        uri + "extendedKeyUsage=clientAuth,serverAuth,anyExtendedKeyUsage\n",
		"a CA":                        uri + both + "basicConstraints=critical,CA:TRUE\n",
		"an unknown critical element": uri + both + "1.2.3.4.5=critical,DER:0500\n",
	} {
		f.sign("forged", "ann", "ca", extensions)
		if greeted(r, ann, f.load(key, "forged")) {
			t.Errorf("%s: greeted", name)
		}
	}

	// Chains that lead elsewhere.
	const authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n"
	newKey := func(name string, args ...string) {
		f.openssl(append([]string{"genpkey", "-out", name + ".key", "-algorithm"}, args...)...)
	}
	newKey("other", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	own, err := identity.LoadCertificates(r.cfg.CA)
	if err != nil {
		t.Fatal(err)
	}
	f.openssl("req", "-x509", "-key", "other.key", "-subj", "/CN="+strings.ReplaceAll(own[0].Subject.CommonName, ",", "\\,"), "-days", "1", "-out", "other.pem",
		"-addext", "subjectKeyIdentifier="+fmt.Sprintf("%x", own[0].SubjectKeyId))
	newKey("middle", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	newKey("below", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
	f.sign("middle", "middle", "ca", authority+"")
	f.sign("narrow", "middle", "ca", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n")
	f.write("narrow.key", read(t, f.in("middle.key")))
	f.sign("below", "below", "narrow", authority)
	f.sign("leaf", "middle", "ca", uri+both) // a portal's certificate, used to sign
	f.write("leaf.key", read(t, f.in("middle.key")))
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
		f.sign("chained", "ann", c.ca, uri+both)
		if got := greeted(r, ann, f.load(key, append([]string{"chained"}, c.chain...)...)); got != c.want {
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
		newKey("weak", c.generate...)
		f.sign("weak", "weak", "ca", uri+both, c.options...)
		signer := crypto.PrivateKey(key) // where Go has no such key, the chain is judged first
		if b, err := os.ReadFile(f.in("weak.key")); err == nil {
			if block, _ := pem.Decode(b); block != nil {
				if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
					signer = k
				}
			}
		}
		begin := time.Now()
		if greeted(r, ann, f.load(signer, "weak")) {
			t.Errorf("%s: greeted", name)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
	r.wantServing()
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
