package identitytest

import (
	"crypto"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Forger makes certificates with openssl, which puts into them what it is told. Its files
// are in a folder of its own; they are named without their endings (.key, .pem).
type Forger struct {
	t        testing.TB
	dir      string
	requests map[string]bool // certificate requests that there are, by their keys
}

// NewForger makes a forger for the test t.
func NewForger(t testing.TB) *Forger {
	t.Helper()
	return &Forger{t: t, dir: t.TempDir(), requests: make(map[string]bool)}
}

// File returns the path of a file of the forger's.
func (f *Forger) File(name string) string { return filepath.Join(f.dir, name) }

// Write writes a file of the forger's and returns its path.
func (f *Forger) Write(name, text string) string {
	f.t.Helper()
	delete(f.requests, strings.TrimSuffix(name, ".key"))
	if err := os.WriteFile(f.File(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.File(name)
}

// Copy makes the content of another file one of the forger's.
func (f *Forger) Copy(name, from string) {
	f.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Write(name, string(b))
}

// OpenSSL runs openssl in the forger's folder.
func (f *Forger) OpenSSL(args ...string) {
	f.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Key makes a key; args are those of "openssl genpkey -algorithm", without any a key on P-256.
func (f *Forger) Key(name string, args ...string) {
	f.t.Helper()
	if len(args) == 0 {
		args = []string{"EC", "-pkeyopt", "ec_paramgen_curve:P-256"}
	}
	delete(f.requests, name)
	f.OpenSSL(append([]string{"genpkey", "-out", name + ".key", "-algorithm"}, args...)...)
}

// Sign makes a certificate for a key under a CA, with openssl's extensions; options are
// those of "openssl x509". Without a CA it is signed by itself.
func (f *Forger) Sign(name, key, ca, extensions string, options ...string) {
	f.t.Helper()
	if !f.requests[key] {
		f.OpenSSL("req", "-new", "-key", key+".key", "-subj", "/CN=ann", "-out", key+".csr")
		f.requests[key] = true
	}
	args := []string{"x509", "-req", "-in", key + ".csr", "-out", name + ".pem", "-extfile", f.Write(name+".ext", extensions)}
	if ca == "" {
		args = append(args, "-signkey", key+".key")
	} else {
		args = append(args, "-CA", ca+".pem", "-CAkey", ca+".key")
	}
	if len(options) == 0 || options[0] != "-days" {
		args = append(args, "-days", "1")
	}
	f.OpenSSL(append(args, options...)...)
}

// Load reads certificates as they are, whatever crypto/x509 thinks of them, to be presented
// with a key.
func (f *Forger) Load(key crypto.PrivateKey, names ...string) tls.Certificate {
	f.t.Helper()
	cert := tls.Certificate{PrivateKey: key}
	for _, name := range names {
		b, err := os.ReadFile(f.File(name + ".pem"))
		if err != nil {
			f.t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return cert
}

// BothUsages is the line of extensions that a certificate of Netport's needs beside its name.
const BothUsages = "extendedKeyUsage=clientAuth,serverAuth\n"

// OddNames returns extensions of certificates that look as if they were of that role and
// name, or of somebody like him, and are of nobody that there is: what is odd, and the
// extensions.
func OddNames(role, name string) map[string]string {
	san := func(text string, args ...any) string {
		return "subjectAltName=" + fmt.Sprintf(text, args...) + "\n" + BothUsages
	}
	good := fmt.Sprintf("URI:spiffe://%s/%s/%s", Domain, role, name)
	first, rest := name[:1], name[1:]
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "URI.%d=spiffe://%s/%s/p%d\n", i+1, Domain, role, i)
	}
	return map[string]string{
		"only a CN":                  BothUsages,
		"a DNS name":                 san("DNS:%s", name),
		"a DNS name beside":          san("%s,DNS:%s", good, name),
		"an e-mail address":          san("email:%s@%s", name, Domain),
		"an IP address beside":       san("%s,IP:127.0.0.1", good),
		"another name form":          san("otherName:1.2.3.4;UTF8:%s", name),
		"two identities":             san("%s,%s-2", good, good),
		"the same twice":             san("%s,%s", good, good),
		"a port":                     san("URI:spiffe://%s:443/%s/%s", Domain, role, name),
		"a query":                    san("%s?x", good),
		"a user":                     san("URI:spiffe://root@%s/%s/%s", Domain, role, name),
		"a coded slash":              san("URI:spiffe://%s/%s%%2f%s", Domain, role, name),
		"a coded letter":             san("URI:spiffe://%s/%s/%%%x%s", Domain, role, first, rest),
		"an upper-case scheme":       san("URI:SPIFFE://%s/%s/%s", Domain, role, name),
		"an upper-case domain":       san("URI:spiffe://%s/%s/%s", strings.ToUpper(Domain), role, name),
		"an upper-case role":         san("URI:spiffe://%s/%s/%s", Domain, strings.ToUpper(role), name),
		"an upper-case name":         san("URI:spiffe://%s/%s/%s", Domain, role, strings.ToUpper(name)),
		"a slash at the end":         san("%s/", good),
		"a dot at the end":           san("%s.", good),
		"a wildcard":                 san("URI:spiffe://%s/%s/*", Domain, role),
		"another scheme":             san("URI:https://%s/%s/%s", Domain, role, name),
		"another domain":             san("URI:spiffe://example.com/%s/%s", role, name),
		"a domain that ends like it": san("URI:spiffe://x%s/%s/%s", Domain, role, name),
		"no role":                    san("URI:spiffe://%s/%s", Domain, name),
		"no such role":               san("URI:spiffe://%s/root/%s", Domain, name),
		"a path below":               san("%s/x", good),
		"an IDN name":                san("URI:spiffe://%s/%s/xn--%s_", Domain, role, name),
		"100 identities":             "subjectAltName=@many\n" + BothUsages + "[many]\n" + many.String(),
	}
}
