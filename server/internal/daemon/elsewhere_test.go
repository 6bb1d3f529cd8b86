package daemon

import (
	"crypto"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/hub"
)

// The CA may be elsewhere: openssl signs, and the server only checks. And a certificate that
// a CA made by itself enrols its name, if the operator allows that.
func TestCertificatesThatAreMadeElsewhere(t *testing.T) {
	r := newRig(t)
	r.shutdown()
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Corporate CA", "-days", "30", "-keyout", "ca.key", "-out", "ca.pem")
	script := dir + "/sign"
	if err := os.WriteFile(script, []byte(`#!/bin/sh
set -e
cd "$(dirname "$0")"
cat > $$.csr
printf 'subjectAltName=URI:%s\nextendedKeyUsage=clientAuth,serverAuth\n' "$NETPORT_URI" > $$.ext
openssl x509 -req -in $$.csr -CA ca.pem -CAkey ca.key -days 20 -extfile $$.ext 2>/dev/null
`), 0o700); err != nil {
		t.Fatal(err)
	}
	r.start()
	pem, err := os.ReadFile(dir + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	var status admin.CAStatus
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandCATrust, admin.CATrustRequest{Certificates: string(pem)}, &status); err != nil {
		t.Fatal(err)
	}
	r.shutdown()
	r.cfg.CACommand, r.cfg.AcceptElsewhere = []string{script}, true
	r.start()
	status = admin.CAStatus{}
	r.ask(admin.CommandCAStatus, &status)
	if status.Mode != "command" || !status.Issuing.IsZero() || status.Version != 3 || len(status.Authorities) != 2 {
		t.Errorf("issued by a command: %+v", status)
	}
	token := r.invite(admin.InviteRequest{Name: "ann"})
	r.credentials["ann"] = r.joiner(token).mustJoin()
	if got := r.credentials["ann"].Leaf().Issuer.CommonName; got != "Corporate CA" {
		t.Errorf("ann's certificate is by %q", got)
	}
	ann := r.portal("ann")
	r.grants(ann, 0)
	chain := r.renew(ann, r.credentials["ann"].Certificate().PrivateKey.(crypto.Signer))
	if chain[0].Issuer.CommonName != "Corporate CA" {
		t.Errorf("renewed by %q", chain[0].Issuer.CommonName)
	}
	// Nobody asked the server about bo.
	elsewhere := func(name string) *identity.Credentials {
		t.Helper()
		key, err := ca.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := identity.SaveKey(dir+"/"+name+".key", key); err != nil {
			t.Fatal(err)
		}
		run("req", "-new", "-key", name+".key", "-subj", "/CN=x", "-out", name+".csr")
		if err := os.WriteFile(dir+"/"+name+".ext", []byte("subjectAltName=URI:spiffe://example.org/portal/"+strings.TrimRight(name, "-2")+"\nextendedKeyUsage=clientAuth,serverAuth\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		run("x509", "-req", "-in", name+".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1", "-extfile", name+".ext", "-out", name+".pem")
		certs, err := identity.LoadCertificates(dir + "/" + name + ".pem")
		if err != nil {
			t.Fatal(err)
		}
		c, err := identity.NewCredentials(certs, key, r.credentials["ann"].Authorities(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	r.credentials["bo"] = elsewhere("bo")
	bo := r.portal("bo")
	r.grants(bo, 0)
	bo.leave()
	r.credentials["bo"] = elsewhere("bo-2") // its CA has given it another key
	first := r.credentials["bo"].Key()
	r.grants(r.portal("bo"), 0)
	if got := r.keyOf("bo"); got != first {
		t.Errorf("bo is enrolled with the key %s, want %s", got, first)
	}
	r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: "bo"})
	r.credentials["bo"] = elsewhere("bo-22")
	if got := connectRefused(r, "bo"); got != wire.ReasonRevoked {
		t.Errorf("a revoked name with a newer certificate is told %v", got)
	}
	if !r.keyOf("bo").IsZero() {
		t.Error("a revoked name has enrolled itself")
	}
	// Back to the built-in CA: nobody may renew for an authority that does not issue.
	r.shutdown()
	r.cfg.CACommand = nil
	r.start()
	status = admin.CAStatus{}
	r.ask(admin.CommandCAStatus, &status)
	if status.Mode != "built-in" || status.Issuing.IsZero() || status.Version != 4 {
		t.Errorf("back to the built-in CA: %+v", status)
	}
}

// keyOf is the key that is enrolled for a portal; zero if there is none.
func (r *rig) keyOf(name string) identity.KeyHash {
	r.t.Helper()
	var portals []hub.PortalView
	r.ask(CommandPortals, &portals)
	for _, p := range portals {
		if p.Name == name {
			return p.Key
		}
	}
	return identity.KeyHash{}
}
