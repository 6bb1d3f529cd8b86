package joining

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/stage"
)

// newStrictWorld is newWorld with a server in strict mode; the folder "operator" is what
// the operator keeps elsewhere.
func newStrictWorld(t *testing.T) *world {
	t.Helper()
	w := emptyWorld(t, nil, nil)
	w.run("server", nil, "init", "--dir", w.folder("server"), "--operator", w.folder("operator"), "--domain", domain, "--address", w.address)
	w.startServer("server")
	return w
}

// operator is the path of a file that the operator keeps elsewhere.
func (w *world) operator(name string) string { return filepath.Join(w.folder("operator"), name) }

// admit is the operator's part when portals join: each shows its key and waits, he compares that with what the server
// says that waits, signs, and brings the certificates back.
func (w *world) admit(portals ...string) {
	w.t.Helper()
	joining := make(map[string]*program)
	args := []string{"ca", "sign", "--ca", w.operator("ca.pem"), "--key", w.operator("ca.key"), "--known", w.operator("known.toml")}
	accept := args
	for _, name := range portals {
		cmd := w.command("portal", "join", "--config", w.config(name))
		cmd.Stdin = strings.NewReader(w.invite("portal", name))
		p := w.launch("join "+name, cmd)
		p.waitLog("Waiting for an operator")
		_, shown, _ := strings.Cut(p.text(), "key is\n  ")
		accept = append(accept, "--accept", name+"="+strings.Fields(shown)[0])
		joining[name] = p
	}
	requests := w.ask("ca", "pending")
	if out, err := w.output("server", strings.NewReader(requests), args...); err == nil || !strings.Contains(out, `"certificates":[]`) {
		w.t.Fatalf("signed for portals that nobody has accepted: %v, %s", err, out)
	}
	signed := w.run("server", strings.NewReader(requests), accept...)
	w.run("server", strings.NewReader(signed), "ca", "install", "--config", w.config("server"))
	for name, p := range joining {
		if err := p.wait(); err != nil {
			w.t.Fatalf("%s: %v\n%s", name, err, p.text())
		}
	}
}

// sign is the operator's part when a policy is to be in force: the portals in the request are those that he has admitted.
// more are options of "policy install".
func (w *world) sign(policy string, more ...string) {
	w.t.Helper()
	file := w.operator("policy.toml")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		w.t.Fatal(err)
	}
	signed := w.run("server", strings.NewReader(w.ask("policy", "request")),
		"policy", "sign", "--key", w.operator("policy.key"), "--policy", file, "--known", w.operator("known.toml"))
	w.run("server", strings.NewReader(signed), append([]string{"policy", "install", "--config", w.config("server")}, more...)...)
}

// granted waits until a portal has exactly the forward, or none.
func (w *world) granted(portal, forward string) {
	w.t.Helper()
	await.Until(w.t, portal+" has the forward "+forward, func() error {
		var s struct {
			Server   struct{ Connected bool }
			Forwards []struct{ Name string }
		}
		out, err := w.output("portal", nil, "status", "--json", "--config", w.config(portal))
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return err
		}
		if !s.Server.Connected || len(s.Forwards) != 1 || s.Forwards[0].Name != forward {
			return fmt.Errorf("it has %+v", s)
		}
		return nil
	})
}

// TestStolenStrictServerRoutesAndGrantsNothing: what was signed on the operator's machine is taken by portals that
// joined. A thief with every file of the server runs it with a policy key and a CA of his own: portals go on talking to
// it, and take neither its grants nor its CA.
func TestStolenStrictServerRoutesAndGrantsNothing(t *testing.T) {
	w := newStrictWorld(t)
	var portals = []string{"ann", "plant"}
	w.admit(portals...)
	running := make(map[string]*program)
	for _, name := range portals {
		running[name] = w.start("portal", name)
		w.waitStatus(name, "connected", time.Minute, func(s status) bool { return s.Server.Connected })
	}
	forward := func(name, target string) string {
		return fmt.Sprintf("[[forward]]\nname = %q\nfrom = \"ann stdio:\"\nto = \"plant tcp://%s\"\n", name, target)
	}
	policy := "domain = \"example.org\"\n" + forward("web", "127.0.0.1:80")
	w.sign(policy)
	for _, name := range portals {
		w.granted(name, "web")
	}

	// The thief: all that the server has, but nobody's signature.
	w.server.stop()
	w.noSecrets("ca.key", "policy.key")
	for _, name := range []string{"policy.key", "policy.toml", "known.toml", "ca.key"} {
		if _, err := os.Stat(filepath.Join(w.folder("server"), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the server has %s: %v", name, err)
		}
	}
	for _, args := range [][]string{{"ca", "roll"}, {"issue", "portal", "mallory", "--out", w.folder("mallory")}, {"ca", "request"}} {
		if out, err := w.output("server", nil, append(args, "--config", w.config("server"))...); err == nil {
			t.Errorf("the stolen server did %q: %s", args, out)
		}
	}
	w.run("server", nil, "init", "--dir", w.folder("thief"), "--domain", domain, "--address", w.address)
	for _, name := range []string{"cert.pem", "key.pem", "stamp.key"} {
		w.copy(filepath.Join(w.folder("server"), name), filepath.Join(w.folder("thief"), name))
	}
	// The portals' keys come with the portals.
	w.copy(filepath.Join(w.folder("server"), "ca.pem"), filepath.Join(w.folder("thief"), "ca.pem"))
	if err := daemon.EditConfig(w.config("thief"), daemon.Set("accept_issued_elsewhere", true), daemon.Set("ca_key", "")); err != nil {
		t.Fatal(err)
	}
	w.startServer("thief")
	for _, name := range portals {
		w.waitStatus(name, "connected to the thief", time.Minute, func(s status) bool { return s.Server.Connected })
	}
	w.run("server", nil, "ca", "new", "--domain", domain, "--out", w.folder("mallory"))
	w.run("server", nil, "ca", "trust", filepath.Join(w.folder("mallory"), "ca.pem"), "--config", w.config("thief"))
	for _, name := range portals {
		running[name].waitLog("authorities of the server not taken")
		if s := w.waitStatus(name, "still as it was", time.Minute, func(s status) bool { return s.Server.Connected }); s.Identity.Authorities != 1 {
			t.Errorf("%s trusts the authorities of version %d", name, s.Identity.Authorities)
		}
	}
	shell, stolen := w.free(), filepath.Join(w.dir, "stolen.toml")
	if err := os.WriteFile(stolen, []byte("domain = \"example.org\"\n"+forward("web", "127.0.0.1:80")+strings.Replace(forward("shell", "127.0.0.1:22"), "stdio:", "tcp://"+shell, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("server", nil, "policy", "apply", stolen, "--config", w.config("thief"))
	for _, name := range portals {
		await.Until(t, name+" refuses what the thief grants", func() error {
			out, _ := w.output("portal", nil, "explain", "shell", "--wide", "--config", w.config(name)) // it fails: the forward does not work
			if !strings.Contains(out, "bad signature") {
				return errors.New(out)
			}
			return nil
		})
	}
	if c, err := net.Dial("tcp", shell); err == nil {
		c.Close()
		t.Error("ann listens for the thief")
	}

	// Who joins there with a token of the thief's would trust his key; who knows the operator's does not.
	var request struct {
		PolicyKey string `json:"policy_key"`
	}
	w.server.stop()
	w.startServer("server")
	if err := json.Unmarshal([]byte(w.ask("policy", "request")), &request); err != nil {
		t.Fatal(err)
	}
	other := "ed25519:" + strings.Repeat("A", 43) + "="
	if err := w.try("portal", strings.NewReader(w.invite("portal", "cy")), "join", "--config", w.config("cy"), "--policy-key", other); err == nil || !strings.Contains(err.Error(), "the token is for the policy key "+request.PolicyKey) {
		t.Errorf("a token for another policy key: %v", err)
	}

	// The server is the operator's again: what he signs is what counts, also what the thief took away.
	w.sign(policy, "--anew")
	for _, name := range portals {
		w.granted(name, "web")
	}
}

// TestStrictServerOpensWhatWasSigned: "allow" on the server opens nothing; what "policy sign" is told to open is open
// at the portals, until its time is over, which takes no signature.
func TestStrictServerOpensWhatWasSigned(t *testing.T) {
	stage.EnterIdle(t)
	w := newStrictWorld(t)
	w.admit("ann", "plant")
	for _, name := range []string{"ann", "plant"} {
		w.start("portal", name)
		w.waitStatus(name, "connected", time.Minute, func(s status) bool { return s.Server.Connected })
	}
	w.sign("domain = \"example.org\"\n[[forward]]\nname = \"shell\"\nfrom = \"ann stdio:\"\nto = \"plant tcp://127.0.0.1:22\"\non_request = \"1h\"\n")
	allow := func(args ...string) string {
		return w.run("server", nil, append(append([]string{"allow"}, args...), "--by", "cy", "--config", w.config("server"))...)
	}
	allow("shell", "--for", "20s")
	list := func() string { return w.run("server", nil, "allow", "--list", "--config", w.config("server")) }
	if got := list(); !strings.Contains(got, "not signed") {
		t.Errorf("allowed, and not signed yet:\n%s", got)
	}
	args := []string{"policy", "sign", "--key", w.operator("policy.key"), "--policy", w.operator("policy.toml"), "--known", w.operator("known.toml")}
	install := func(signed string) {
		w.run("server", strings.NewReader(signed), "policy", "install", "--config", w.config("server"))
	}
	install(w.run("server", strings.NewReader(w.ask("policy", "request")), args...))
	if got := list(); !strings.Contains(got, "not signed") {
		t.Errorf("signed by who was not told to open it:\n%s", got)
	}
	install(w.run("server", strings.NewReader(w.ask("policy", "request")), append(args, "--allow", "shell")...))
	for _, name := range []string{"ann", "plant"} {
		w.granted(name, "shell")
	}
	for _, want := range []string{"waiting", "granted", "ended"} {
		await.Until(t, "the audit log to have an opening "+want, func() error {
			out := w.run("server", nil, "audit", "--json", "--config", w.config("server"))
			var records []struct{ Event, Answer string }
			if err := json.Unmarshal([]byte(out), &records); err != nil {
				return err
			}
			for _, r := range records {
				if r.Event == "allow" && r.Answer == want {
					return nil
				}
			}
			return errors.New(out)
		})
	}
	if got := list(); strings.Contains(got, "shell") {
		t.Errorf("open after its time:\n%s", got)
	}
}

// noSecrets wants that nothing of the server's folder holds one of the operator's keys, however it is written.
func (w *world) noSecrets(names ...string) {
	w.t.Helper()
	for _, name := range names {
		secret := secretOf(w.t, w.operator(name))
		seen := 0
		err := filepath.WalkDir(w.folder("server"), func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			seen++
			for _, form := range [][]byte{secret, []byte(hex.EncodeToString(secret))} {
				if bytes.Contains(bytes.ToLower(b), form) || bytes.Contains(b, form) {
					w.t.Errorf("%s holds %s", file, name)
				}
			}
			for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
				if bytes.Contains(block.Bytes, secret) {
					w.t.Errorf("%s holds %s", file, name)
				}
			}
			return nil
		})
		if err != nil || seen < 5 {
			w.t.Fatalf("looked at %d files: %v", seen, err)
		}
	}
}

// secretOf returns the secret number of a private key.
func secretOf(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		secret, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return secret
	case ed25519.PrivateKey:
		return key.Seed()
	}
	t.Fatalf("%s is a key of type %T", file, key)
	return nil
}

func (w *world) copy(from, to string) {
	w.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
