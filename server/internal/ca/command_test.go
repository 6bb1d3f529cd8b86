package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// signer is a CA of the operator's, run by openssl: what a ca_command of his would be.
type signer struct {
	t   *testing.T
	dir string
	ca  *x509.Certificate
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{t: t, dir: t.TempDir()}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	openssl(t, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Corporate CA", "-days", "30", "-keyout", in("ca.key"), "-out", in("ca.pem"))
	certs, err := identity.LoadCertificates(in("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.ca = certs[0]
	return s
}

// command writes a program that signs what it is given; extensions and more options
// of "openssl x509" are its own.
func (s *signer) command(name, extensions, options string) []string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	script := fmt.Sprintf(`#!/bin/sh
set -e
cd %q
cat > "$$.csr"
{ %s
} > "$$.ext"
openssl x509 -req -in "$$.csr" -CA ca.pem -CAkey ca.key -days 1 -extfile "$$.ext" %s 2>"$$.err" || { cat "$$.err" >&2; exit 1; }
cat ca.pem
`, s.dir, extensions, options)
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		s.t.Fatal(err)
	}
	return []string{file}
}

const (
	goodExtensions = `echo "subjectAltName=URI:$NETPORT_URI"; echo "extendedKeyUsage=clientAuth,serverAuth"; echo "basicConstraints=CA:FALSE"`
	serverOnly     = `echo "subjectAltName=URI:$NETPORT_URI"; echo "extendedKeyUsage=serverAuth"`
	otherName      = `echo "subjectAltName=URI:spiffe://example.org/portal/thief"; echo "extendedKeyUsage=clientAuth,serverAuth"`
	twoNames       = `echo "subjectAltName=URI:$NETPORT_URI,URI:spiffe://example.org/portal/thief"; echo "extendedKeyUsage=clientAuth,serverAuth"`
	noName         = `echo "extendedKeyUsage=clientAuth,serverAuth"`
	anyUsage       = `echo "subjectAltName=URI:$NETPORT_URI"; echo "extendedKeyUsage=clientAuth,serverAuth,anyExtendedKeyUsage"`
	asCA           = `echo "subjectAltName=URI:$NETPORT_URI"; echo "basicConstraints=critical,CA:TRUE"; echo "extendedKeyUsage=clientAuth,serverAuth"`
)

// asked is an order with its request, as who joins sends it.
func asked(t *testing.T, role identity.Role, life time.Duration) Order {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(identity.ID{Domain: "example.org", Role: role, Name: "ann"}, key)
	if err != nil {
		t.Fatal(err)
	}
	return Order{Role: role, Name: "ann", Public: key.Public(), Request: request, Life: life}
}

func TestCommandIssuesWhatIsChecked(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	try := func(args []string, o Order, trusted ...*x509.Certificate) ([]*x509.Certificate, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return NewCommand("example.org", args, func() []*x509.Certificate { return trusted }, time.Now).Issue(ctx, o)
	}
	for _, role := range []identity.Role{identity.Portal, identity.Relay, identity.Server} {
		o := asked(t, role, 24*time.Hour)
		chain, err := try(s.command("good", goodExtensions, ""), o, s.ca)
		if err != nil || len(chain) != 1 || !samePublic(chain[0].PublicKey, o.Public) {
			t.Errorf("%s: %d certificates, %v", role, len(chain), err)
		}
	}
	ec, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	thief := filepath.Join(s.dir, "thief.pub")
	if err := os.WriteFile(thief+".der", der, 0o600); err != nil {
		t.Fatal(err)
	}
	openssl(t, "pkey", "-pubin", "-inform", "DER", "-in", thief+".der", "-out", thief)
	script := func(name, text string) []string {
		file := filepath.Join(s.dir, name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return []string{file}
	}
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"another name":       {s.command("name", otherName, ""), "the certificate is for spiffe://example.org/portal/thief"},
		"two names":          {s.command("two", twoNames, ""), "2 names"},
		"no name":            {s.command("none", noName, ""), "no"},
		"server only":        {s.command("server", serverOnly, ""), "must be good for client and server authentication"},
		"any usage":          {s.command("any", anyUsage, ""), "any extended key usage"},
		"a CA":               {s.command("ca", asCA, ""), "is a CA's"},
		"another key":        {s.command("key", goodExtensions, "-force_pubkey "+thief), "another key"},
		"too long":           {s.command("long", goodExtensions, "-days 400"), "longer than certificate_life (1d)"},
		"another CA":         {other.command("other", goodExtensions, ""), "does not lead to an authority"},
		"nothing":            {script("nothing", "cat >/dev/null"), "no certificate"},
		"no PEM":             {script("text", "cat >/dev/null; echo hello"), "no PEM CERTIFICATE block"},
		"the request itself": {script("echo", "cat"), "no PEM CERTIFICATE block"},
		"failure":            {script("fail", "cat >/dev/null; echo 'no such profile' >&2; exit 3"), `exit status 3: "no such profile"`},
		"a flood":            {script("flood", "cat /dev/zero"), "wrote more than"},
		"no program":         {[]string{filepath.Join(s.dir, "missing")}, "no such file"},
	} {
		if _, err := try(c.args, asked(t, identity.Portal, 24*time.Hour), s.ca); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	late := asked(t, identity.Portal, 24*time.Hour)
	late.Begin = time.Now().Add(time.Hour)
	if _, err := try(s.command("good", goodExtensions, ""), late, s.ca); err == nil || !strings.Contains(err.Error(), "begins before the revocation") {
		t.Errorf("a certificate from before the revocation: %v", err)
	}
}

// A program that hangs, and holds its output open through a child, costs its time and
// nothing more.
func TestCommandThatHangsIsEnded(t *testing.T) {
	s := newSigner(t)
	file := filepath.Join(s.dir, "hang")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nsleep 600 &\necho $! > \"$0.pid\"\nwait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	c := NewCommand("example.org", []string{file}, func() []*x509.Certificate { return []*x509.Certificate{s.ca} }, time.Now)
	begin := time.Now()
	if _, err := c.Issue(ctx, asked(t, identity.Portal, time.Hour)); err == nil {
		t.Error("issued")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	text, err := os.ReadFile(file + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C { // it is dead once somebody has waited for it
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(status), ") Z ") {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("what it had started runs on")
		}
	}
	if n := len(c.turns); n != 0 {
		t.Errorf("%d turns are still taken", n)
	}
}
