package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/local"
)

const policyKey = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

// portal makes the folder of a portal and returns its configuration file.
func portal(t *testing.T, servers string) string {
	t.Helper()
	return portalOf(t, identitytest.New(t), servers)
}

// portalOf is portal in a domain.
func portalOf(t *testing.T, a *identitytest.Authority, servers string) string {
	t.Helper()
	dir := a.Enrol(identity.Portal, "laptop")
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("servers = %s\npolicy_key = %q\n", servers, policyKey)
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	return file
}

// nothing are the means of a machine whose network swallows all.
func nothing() Means {
	swallow := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	return Means{
		Now:    time.Now,
		Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) { return nil, swallow(ctx) },
		Dial:   func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, swallow(ctx) },
		DialUDP: func(ctx context.Context, _ string, _ *tls.Config) (tls.ConnectionState, error) {
			return tls.ConnectionState{}, swallow(ctx)
		},
		Listen: func(string) (net.PacketConn, error) { return newSky(), nil },
		MTU:    func(context.Context, netip.AddrPort) int { return 0 },
		Ask: func(context.Context, string) (daemon.Known, error) {
			return daemon.Known{}, fmt.Errorf("ask: %w", local.ErrNoDaemon)
		},
		Meet:   func(ctx context.Context, _, _ string) error { return swallow(ctx) },
		Router: func(ctx context.Context) (string, error) { return "", swallow(ctx) },
	}
}

// TestANetworkThatSwallowsAllTakesLittleTime: all is tried side by side, each for stepTime.
func TestANetworkThatSwallowsAllTakesLittleTime(t *testing.T) {
	file := portal(t, `["netport.example.org", "two.example.org:443", "192.0.2.1", "[2001:db8::1]:443"]`)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := Examine(t.Context(), file, nothing())
		if took := time.Since(began); took > 2*stepTime {
			t.Errorf("it took %v", took)
		}
		if len(f.Names) != 2 || len(f.Servers) != 3 { // 192.0.2.1 at both ports
			t.Errorf("names %+v, servers %+v", f.Names, f.Servers)
		}
		r := Judge(f)
		want := map[string]State{
			"name netport.example.org": Failed, "server 192.0.2.1:443": Failed, "server 192.0.2.1:80": Failed, "server [2001:db8::1]:443": Failed,
			"clock": Warning, "daemon": Warning, "relays": Warning, "files": OK,
		}
		for _, l := range r.Lines {
			if s, ok := want[l.What]; ok && s == l.State {
				delete(want, l.What)
			}
		}
		if len(want) > 0 || !r.Failed() {
			t.Errorf("not found: %v in %+v", want, r.Lines)
		}
	})
}

func TestFilesThatAreNotRightAreNamed(t *testing.T) {
	file := portal(t, `["192.0.2.1"]`)
	dir := filepath.Dir(file)
	text := func() string {
		var b strings.Builder
		m := nothing()
		m.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, os.ErrDeadlineExceeded }
		m.Router = func(context.Context) (string, error) { return "PCP", nil }
		for _, l := range Judge(Examine(t.Context(), file, m)).Lines {
			fmt.Fprintf(&b, "%s %s: %s\n", l.State, l.What, l.Text)
		}
		return b.String()
	}
	for _, c := range []struct {
		name  string
		spoil func() error
		want  string
	}{
		{"as it should be", func() error { return nil }, "ok files: key, certificate, state"},
		{"state for all", func() error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "state"), 0o700), os.Chmod(filepath.Join(dir, "state"), 0o777))
		}, "failed state: "},
		{"state that is none", func() error {
			return errors.Join(os.Chmod(filepath.Join(dir, "state"), 0o700), os.WriteFile(filepath.Join(dir, "state", "portal.state"), []byte("NPstate\x02 cut"), 0o600))
		}, "failed kept state: it is cut or was altered"},
		{"a key for all", func() error { return os.Chmod(filepath.Join(dir, "key.pem"), 0o644) }, "failed key: "},
		{"no certificate", func() error {
			return errors.Join(os.Chmod(filepath.Join(dir, "key.pem"), 0o600), os.Remove(filepath.Join(dir, "cert.pem")))
		}, "failed certificate: "},
		{"no configuration", func() error { return os.WriteFile(file, []byte("server = 1\n"), 0o600) }, `unknown key "server"`},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		if got := text(); !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in\n%s", c.name, c.want, got)
		}
	}
}

// TestARunningDaemonIsAskedAndLeftAlone: it knows the time; nobody says Hello in its place.
func TestARunningDaemonIsAskedAndLeftAlone(t *testing.T) {
	file := portal(t, `["192.0.2.1:443"]`)
	synctest.Test(t, func(t *testing.T) {
		m := nothing()
		dials := 0
		m.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, os.ErrDeadlineExceeded
		}
		m.Ask = func(context.Context, string) (k daemon.Known, err error) {
			k.Status.Server.Connected, k.Status.Server.Name, k.Status.Server.Address = true, "server", "192.0.2.9:443"
			k.Status.Identity.Clock = -2 * time.Hour
			return k, nil
		}
		f := Examine(t.Context(), file, m)
		if !f.Told || f.Ahead != -2*time.Hour || dials != 1 {
			t.Errorf("told %t, ahead %v, %d dials", f.Told, f.Ahead, dials)
		}
		if r := Judge(f); r.Failed() {
			t.Errorf("a portal that is connected has failed: %+v", r.Lines)
		}
	})
}

// TestSessionPortsAreShownByATunnel: a daemon that has none is asked to open one, with a portal that can be reached.
func TestSessionPortsAreShownByATunnel(t *testing.T) {
	file := portal(t, `["192.0.2.1:443"]`)
	for _, c := range []struct {
		path, state, text string
		met               error
	}{
		{path: "relay-packet", state: "ok", text: "the tunnel to plant goes by them at relay relay-1: relay-packet"},
		{path: "relay-tls", state: "warning", text: "the tunnel to plant goes by the port that all sessions of relay relay-1 share (relay-tls)"},
		{met: errors.New("nobody\ncame"), state: "warning", text: "not known: no tunnel could be opened: nobody"},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := nothing()
			var known daemon.Known
			known.Status.Server.Connected, known.Status.Server.Address = true, "192.0.2.9:443"
			known.Status.Forwards = []daemon.Forward{{Peer: "away", State: daemon.Down}, {Peer: "plant", State: daemon.Up}}
			m.Ask = func(context.Context, string) (daemon.Known, error) { return known, nil }
			m.Meet = func(_ context.Context, _, portal string) error {
				if portal != "plant" {
					t.Errorf("it meets %s", portal)
				}
				if c.met == nil {
					known.Status.Tunnels = []peers.Status{{Peer: "plant", Up: true, Relay: "relay-1", Address: "192.0.2.7:20000", Path: c.path, Ways: []peers.Way{{Path: c.path}}}}
				}
				return c.met
			}
			r := Judge(Examine(t.Context(), file, m))
			found := false
			for _, l := range r.Lines {
				if l.What == "session ports" {
					found = string(l.State) == c.state && l.Text == c.text
				}
			}
			opens := slices.ContainsFunc(r.Open, func(o Opening) bool { return o.Ports == sessionPorts })
			if !found || opens != (c.path == "relay-tls") {
				t.Errorf("%s: %+v", c.path, r)
			}
			m.Meet = func(context.Context, string, string) error {
				t.Error("a tunnel is there, and another is asked for")
				return nil
			}
			if c.met == nil {
				Examine(t.Context(), file, m)
			}
		})
	}
}
