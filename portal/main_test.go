package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"netport-portal": main})
}

// TestStories runs the program as its user does: testdata/script/*.txt, one
// file a story.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"identity": identityCmd,
			"serving":  servingCmd,
			"until":    untilCmd,
		},
	})
}

// identityCmd makes key.pem, cert.pem and ca.pem of a portal:
//
//	identity NAME
func identityCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: identity NAME")
	}
	sign := func(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
		template.SerialNumber, template.NotAfter = big.NewInt(1), time.Now().Add(30*24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		ts.Check(err)
		cert, err := x509.ParseCertificate(der)
		ts.Check(err)
		return cert
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		ts.Check(err)
		return key
	}
	id, err := identity.New("example.org", identity.Portal, args[0])
	ts.Check(err)
	caKey, key := newKey(), newKey()
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca := sign(template, template, caKey, caKey)
	cert := sign(&x509.Certificate{
		URIs: []*url.URL{id.URL()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, ca, key, caKey)
	ts.Check(identity.SaveKey(ts.MkAbs("key.pem"), key))
	ts.Check(os.WriteFile(ts.MkAbs("cert.pem"), identity.EncodeCertificates(cert), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), identity.EncodeCertificates(ca), 0o600))
}

// untilCmd runs a program again and again until it prints what matches:
//
//	until REGEXP PROGRAM [ARGS]
func untilCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARGS]")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("nothing that matches %s was printed", args[0])
		}
	}
}

// servingCmd waits until a portal serves its socket:
//
//	serving SOCKET
func servingCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: serving SOCKET")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for local.Call(ctx, ts.MkAbs(args[0]), "status", nil, nil) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("nobody serves %s", args[0])
		}
	}
}
