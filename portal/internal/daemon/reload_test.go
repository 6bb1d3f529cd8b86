package daemon

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/proto/local"
)

// reread has a portal take its configuration with something else added to it.
func (p *testPortal) reread(more string) {
	p.w.Helper()
	name := filepath.Join(filepath.Dir(p.config.Key), "config.toml")
	b, err := os.ReadFile(name)
	if err != nil {
		p.w.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n[") // what the last time has added
	if err := os.WriteFile(name, []byte(first+"\n"+more), 0o600); err != nil {
		p.w.Fatal(err)
	}
	c, err := config.Load(name)
	if err != nil {
		p.w.Fatal(err)
	}
	p.take(c)
}

// TestNewListsOfTheOwnerCutWhatRuns: what the owner of either machine takes away ends at
// once, and comes back when he gives it back.
func TestNewListsOfTheOwnerCutWhatRuns(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	open := func() net.Conn {
		t.Helper()
		conn := w.dial("tcp", g.Listen.HostPort())
		if got, err := ask(conn, "hello"); got != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		return conn
	}
	for _, c := range []struct {
		portal *testPortal
		list   string
	}{{factory, "dial"}, {ann, "listen"}} {
		conn := open()
		c.portal.reread("[" + c.list + "]\nallow = [\"" + g.Listen.String() + "\", \"" + g.Target.String() + "\"]\n")
		if got, err := ask(conn, "again"); got != "again" {
			t.Errorf("%s: a list that names the forward has ended it: %v", c.list, err)
		}
		c.portal.reread("[" + c.list + "]\nallow = []\n")
		if b, err := io.ReadAll(conn); err == nil {
			t.Errorf("%s: what the list does not allow ended cleanly after %q", c.list, b)
		}
		c.portal.waitState("web", Down)
		if got, err := w.askFresh(g.Listen.HostPort()); err == nil {
			t.Errorf("%s: what the list does not allow is carried: %q", c.list, got)
		}
		c.portal.reread("")
		c.portal.waitState("web", Up)
		ann.waitState("web", Up)
		open().Close()
	}
}

// TestCommandsNeedTheOwnersLeaveToo: "connect" is a listener like others.
func TestCommandsNeedTheOwnersLeaveToo(t *testing.T) {
	w := newWorld(t)
	ann, factory := w.portal("ann", ""), w.portal("factory", "")
	target := w.echo("tcp", "127.0.0.1:0")
	uri := "tcp://" + target.Addr().String()
	w.grant(w.permission("shell", "ann", "stdio:", "factory", uri))
	ann.waitState("shell", Up)
	factory.waitState("shell", Up)
	ann.reread("[listen]\nallow = [\"tcp://127.0.0.1:*\"]\n")
	ann.waitState("shell", Down)
	_, err := local.Stream(t.Context(), ann.config.Socket, CallConnect, ConnectArgs{Portal: "factory", Target: uri, Token: "a"})
	if err == nil || !strings.Contains(err.Error(), "not in the [listen] list") {
		t.Errorf("connect: %v", err)
	}
	ann.reread("")
	ann.waitState("shell", Up)
}
