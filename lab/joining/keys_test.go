package joining

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
)

// TestPortalWithItsKeyInATPM has a portal whose key a software TPM has.
func TestPortalWithItsKeyInATPM(t *testing.T) {
	need.Program(t, "swtpm")
	stage.EnterIdle(t)
	dir, err := os.MkdirTemp("", "netport-tpm-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "sock")
	w := newWorld(t, daemon.Set("certificate_life", "1m"))
	power := func() *program {
		p := w.launch("swtpm", topo.Here("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir,
			"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear"))
		await.Until(t, "the TPM answers", func() error {
			conn, err := net.Dial("unix", socket)
			if err == nil {
				conn.Close()
			}
			return err
		})
		return p
	}
	soft := power()
	s := w.newStory("TSS2 PRIVATE KEY", "--key", "tpm", "--tpm", socket)
	s.renews()

	// Without its TPM the portal says so, and goes on by itself when that is back.
	soft.stop()
	os.Remove(socket)
	w.server.stop()
	w.startServer("server")
	s.ann.waitLog("use the TPM " + socket + ": there is none")
	power()
	w.waitStatus("ann", "connected again", 2*time.Minute, func(s status) bool { return s.Server.Connected })
	s.starts()
}

// TestPortalWithItsKeyOnAToken has a portal whose key a software PKCS #11 token has.
func TestPortalWithItsKeyOnAToken(t *testing.T) {
	need.Program(t, "softhsm2-util", "gcc")
	stage.EnterIdle(t)
	w := newWorld(t, daemon.Set("certificate_life", "1m"))
	tokens := filepath.Join(w.dir, "tokens")
	conf, pin := filepath.Join(w.dir, "softhsm2.conf"), filepath.Join(w.dir, "pin")
	if err := errors.Join(
		os.Mkdir(tokens, 0o700),
		os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\n"), 0o600),
		os.WriteFile(pin, []byte("987654\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	w.environment = append(w.environment, "SOFTHSM2_CONF="+conf)
	tool(t, w, "softhsm2-util", "--init-token", "--free", "--label", "netport", "--so-pin", "1234", "--pin", "987654")
	portal := filepath.Join(w.dir, "netport-portal")
	uri := "pkcs11:token=netport;object=portal?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:" + pin
	err := w.try("portal", strings.NewReader(w.invite("portal", "plain")), "join", "--config", w.config("plain"), "--key", uri)
	if err == nil || !strings.Contains(err.Error(), "built without PKCS #11") {
		t.Errorf("the portal without PKCS #11: %v", err)
	}
	if err := os.Remove(portal); err != nil {
		t.Fatal(err)
	}
	tool(t, w, "go", append([]string{"build", "-C", "../../portal", "-buildvcs=false", "-tags", "pkcs11", "-o", portal}, builtAlready(t)...)...)

	s := w.newStory("PKCS#11 PROVIDER URI", "--key", uri)
	s.renews()
	s.starts()
	objects, err := filepath.Glob(filepath.Join(tokens, "*", "*.object"))
	if err != nil || len(objects) != 3 { // of the token itself, and one key's two halves
		t.Errorf("on the token are %q, %v: the old key is not removed", objects, err)
	}
}

// builtAlready returns the arguments of go build with which a package is built as this test was: most of what a program
// needs was built for tests before it.
func builtAlready(t *testing.T) []string {
	t.Helper()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("a test that does not know how it was built")
	}
	if slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return []string{"-race", "."}
	}
	return []string{"."}
}

// tool runs a program that has to succeed.
func tool(t *testing.T, w *world, name string, args ...string) {
	t.Helper()
	cmd := topo.Here(name, args...)
	cmd.Env, cmd.Limit = append(os.Environ(), append(w.environment, "CGO_ENABLED=1")...), daemon.BuildTime
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// story is a portal, ann, with its key elsewhere than in its file, and a forward from it
// to another, by a relay.
type story struct {
	*world
	ann    *program
	block  string // PEM type of ann's key file
	listen string // of the forward
}

// newStory has everybody join and starts them.
func (w *world) newStory(block string, where ...string) *story {
	t := w.t
	t.Helper()
	s := &story{world: w, block: block, listen: w.free()}
	join := append([]string{"join", "--config", w.config("ann")}, where...)
	if err := errors.Join(
		w.try("portal", strings.NewReader(w.invite("portal", "ann")), join...),
		w.join("portal", "plant", w.invite("portal", "plant")),
		w.join("relay", "relay-1", w.invite("relay", "relay-1", "--address", w.ip)),
		daemon.EditConfig(w.config("ann"), daemon.Set("renew_key", true)),
		daemon.EditConfig(w.config("relay-1"), daemon.Set("allow_loopback", true), daemon.Set("addresses", []string{w.ip}), daemon.Set("mode", "userspace")),
	); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(w.dir, "policy.toml")
	if err := os.WriteFile(policy, fmt.Appendf(nil, "domain = %q\n[[forward]]\nname = \"echo\"\nfrom = \"ann tcp://%s\"\nto = \"plant tcp://%s\"\n", domain, s.listen, echo(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.ask("policy", "apply", policy)
	w.certify("ann", time.Now().Add(20*time.Second)) // so that the first renewal comes soon
	w.start("relay", "relay-1")
	w.start("portal", "plant").waitLog("connected to server")
	s.ann = w.start("portal", "ann")
	return s
}

// renews has ann's certificate renewed with a new key, in the same place, while a stream
// goes on.
func (s *story) renews() {
	s.t.Helper()
	before := s.waitStatus("ann", "connected", await.Patience, func(s status) bool { return s.Server.Connected })
	old := s.keyFile()
	conn := s.stream()
	s.waitStatus("ann", "renewed with a new key", 2*time.Minute, func(s status) bool { return s.Identity.Key != before.Identity.Key })
	if bytes.Equal(s.keyFile(), old) {
		s.t.Error("the key file is the old one")
	}
	if _, err := os.Stat(filepath.Join(s.folder("ann"), "key.pem.next")); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("a key is left beside: %v", err)
	}
	said(s.t, conn, "after the renewal")
}

// starts has ann started anew: it finds its key, and what it forwards goes on.
func (s *story) starts() {
	s.t.Helper()
	s.ann.stop()
	s.ann = s.start("portal", "ann")
	said(s.t, s.stream(), "after a start")
}

// keyFile returns the contents of ann's key file.
func (s *story) keyFile() []byte {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.folder("ann"), "key.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != s.block {
		s.t.Fatalf("the key file is %.60q, no %s", text, s.block)
	}
	return block.Bytes
}

// stream returns a connection over the forward, as soon as it works.
func (s *story) stream() net.Conn {
	s.t.Helper()
	var conn net.Conn
	await.Within(s.t, "a stream from ann to plant", time.Minute, func() (err error) {
		if conn, err = net.Dial("tcp", s.listen); err != nil {
			return err
		}
		if err = exchange(conn, "hello"); err != nil {
			conn.Close()
		}
		return err
	})
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

func said(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if err := exchange(conn, text); err != nil {
		t.Errorf("a stream %s: %v", text, err)
	}
}

// exchange sends a text, and wants it back.
func exchange(conn net.Conn, text string) error {
	conn.SetDeadline(time.Now().Add(await.Patience))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("%q came back", b)
	}
	return nil
}

// echo returns the address of a service that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	topo.Echo(t, l)
	return l.Addr().String()
}
