package joining

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// newStrictWorld is newWorld with a server in strict mode; the folder "operator" is what
// the operator keeps elsewhere.
func newStrictWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	if err := daemon.Install(w.dir); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	l.Close()
	w.run("server", nil, "init", "--dir", w.folder("server"), "--operator", w.folder("operator"), "--domain", domain, "--address", w.address)
	w.startServer("server")
	return w
}

// sign is the operator's part: he reads a request, compares the keys with those that the
// portals show themselves, and signs his policy.
func (w *world) sign(request, policy string, portals ...string) (signed string) {
	w.t.Helper()
	file := filepath.Join(w.folder("operator"), "policy.toml")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		w.t.Fatal(err)
	}
	args := []string{
		"policy", "sign", "--key", filepath.Join(w.folder("operator"), "policy.key"), "--policy", file, "--known", filepath.Join(w.folder("operator"), "known.toml"),
	}
	_, err := w.output("server", strings.NewReader(request), args...)
	if err == nil {
		w.t.Fatal("unknown portals were signed for")
	}
	for _, name := range portals {
		var s status
		if err := json.Unmarshal([]byte(w.run("portal", nil, "status", "--json", "--config", w.config(name))), &s); err != nil {
			w.t.Fatal(err)
		}
		key := regexp.MustCompile(`--accept ` + name + `=(` + s.Identity.Key + `[0-9a-f]{48})`).FindStringSubmatch(err.Error())
		if key == nil {
			w.t.Fatalf("%s says its key is %s, and the operator is shown: %v", name, s.Identity.Key, err)
		}
		args = append(args, "--accept", name+"="+key[1])
	}
	return w.run("server", strings.NewReader(request), args...)
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

// TestStolenStrictServerRoutesAndGrantsNothing: what was signed on the operator's machine
// is taken by portals that joined. A thief with every file of the server runs it with a
// policy key of his own: portals go on talking to it, and take none of its grants.
func TestStolenStrictServerRoutesAndGrantsNothing(t *testing.T) {
	w := newStrictWorld(t)
	var portals = []string{"ann", "plant"}
	for _, name := range portals {
		if err := w.join("portal", name, w.invite("portal", name)); err != nil {
			t.Fatal(err)
		}
		w.start("portal", name)
		w.waitStatus(name, "connected", time.Minute, func(s status) bool { return s.Server.Connected })
	}
	forward := func(name, target string) string {
		return fmt.Sprintf("[[forward]]\nname = %q\nfrom = \"ann stdio:\"\nto = \"plant tcp://%s\"\n", name, target)
	}
	signed := w.sign(w.ask("policy", "request"), "domain = \"example.org\"\n"+forward("web", "127.0.0.1:80"), portals...)
	w.run("server", strings.NewReader(signed), "policy", "install", "--config", w.config("server"))
	for _, name := range portals {
		w.granted(name, "web")
	}

	// The thief: all that the server has, but nobody's signature.
	w.server.stop()
	for _, name := range []string{"cert.pem", "key.pem", "ca.pem", "ca.key", "stamp.key", "config.toml", "state.db"} {
		if _, err := os.Stat(filepath.Join(w.folder("server"), name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"policy.key", "policy.toml", "known.toml"} {
		if _, err := os.Stat(filepath.Join(w.folder("server"), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the server has %s: %v", name, err)
		}
	}
	w.run("server", nil, "init", "--dir", w.folder("thief"), "--domain", domain, "--address", w.address)
	for _, name := range []string{"cert.pem", "key.pem", "ca.pem", "ca.key", "stamp.key"} {
		b, err := os.ReadFile(filepath.Join(w.folder("server"), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.folder("thief"), name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The portals' keys come with the portals.
	if err := daemon.EditConfig(w.config("thief"), daemon.Set("accept_issued_elsewhere", true)); err != nil {
		t.Fatal(err)
	}
	w.startServer("thief")
	for _, name := range portals {
		w.waitStatus(name, "connected to the thief", time.Minute, func(s status) bool { return s.Server.Connected })
	}
	stolen := filepath.Join(w.dir, "stolen.toml")
	if err := os.WriteFile(stolen, []byte("domain = \"example.org\"\n"+forward("web", "127.0.0.1:80")+strings.Replace(forward("shell", "127.0.0.1:22"), "stdio:", "tcp://127.0.0.1:2222", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("server", nil, "policy", "apply", stolen, "--config", w.config("thief"))
	for _, name := range portals {
		await.Until(t, name+" refuses what the thief grants", func() error {
			out, _ := w.output("portal", nil, "explain", "shell", "--config", w.config(name)) // it fails: the forward does not work
			if !strings.Contains(out, "bad signature") {
				return errors.New(out)
			}
			return nil
		})
	}
	if c, err := net.Dial("tcp", "127.0.0.1:2222"); err == nil {
		c.Close()
		t.Error("ann listens for the thief")
	}

	// The server is the operator's again: what he signed is what counts.
	w.server.stop()
	w.startServer("server")
	for _, name := range portals {
		w.granted(name, "web")
	}
}
