package daemon

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/control"
	joining "github.com/netport/netport/proto/enrol"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/hub"
)

// overUDP starts the server anew with a port over UDP that refuses TCP, and returns that.
func (r *rig) overUDP() string {
	r.t.Helper()
	r.shutdown()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	c.Close()
	r.cfg.ListenUDP, r.cfg.UDPNamed = []string{c.LocalAddr().String()}, true
	r.start()
	return r.cfg.ListenUDP[0]
}

// TestServedOverUDP: who joins, portals, relays and admins are served over UDP as over TCP, and who may not come
// in is refused and counted.
func TestServedOverUDP(t *testing.T) {
	r := newRig(t, "laptop", "relay-1")
	r.admin("ann", admin.InviteRequest{})
	address := r.overUDP()

	token := r.invite(admin.InviteRequest{Name: "factory"})
	token.Servers = []string{address}
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	joiner := joining.Client{Software: "test 1", Now: time.Now}
	if got, err := joiner.Join(t.Context(), token, key); err != nil || got.ID.Name != "factory" {
		t.Errorf("joined as %v: %v", got.ID, err)
	}

	conn, _, err := control.Connect(t.Context(), nil, address, func() (*tls.Config, struct{}) {
		return r.credentials["ann"].ClientTLS(identity.ProtocolAdmin, identity.Expect(identity.Server, "")), struct{}{}
	})
	if err != nil {
		t.Fatal(err)
	}
	var status Status
	if err := local.CallOver(t.Context(), conn, CommandStatus, nil, &status); err != nil || status.Domain != r.cfg.Domain {
		t.Errorf("an admin is told %+v, %v", status, err)
	}
	conn.Close()

	ctx, leave := context.WithCancel(t.Context())
	up, gone := make(chan net.Addr, 2), make(chan error, 2)
	portal := dialer[wire.ToPortal, wire.FromPortal](r, "laptop", wire.ParseToPortal)
	portal.Last = func() control.Way { return control.Way{Address: address, UDP: true} }
	go func() {
		gone <- portal.Keep(ctx, []string{address}, func(ctx context.Context, c *control.Conn[wire.ToPortal, wire.FromPortal], _ wire.Welcome) error {
			up <- c.LocalAddr()
			return c.Run(ctx, func(wire.ToPortal) error { return nil })
		})
	}()
	relay := dialer[wire.ToRelay, wire.FromRelay](r, "relay-1", wire.ParseToRelay)
	relay.Last = portal.Last
	go func() {
		gone <- relay.Keep(ctx, []string{address}, func(ctx context.Context, c *control.Conn[wire.ToRelay, wire.FromRelay], _ wire.Welcome) error {
			up <- c.LocalAddr()
			return c.Run(ctx, func(wire.ToRelay) error { return nil })
		})
	}()
	places := map[string]bool{}
	for range 2 {
		places[(<-up).String()] = true
	}
	at := netip.MustParseAddrPort(address)
	over := hub.Over{Transport: "udp", Port: at.Port()}
	r.until("both are online, over UDP", func() bool {
		var portals []hub.PortalView
		var relays []hub.RelayView
		if local.Call(t.Context(), r.cfg.Socket, CommandPortals, nil, &portals) != nil || local.Call(t.Context(), r.cfg.Socket, CommandRelays, nil, &relays) != nil {
			return false
		}
		for _, p := range portals {
			if p.Name == "laptop" && p.Online && places[p.From.String()] {
				return p.Over == over && len(relays) == 1 && relays[0].Online && relays[0].Over == over
			}
		}
		return false
	})

	// A portal as an admin.
	conn, _, err = control.Connect(t.Context(), nil, address, func() (*tls.Config, struct{}) {
		return r.credentials["laptop"].ClientTLS(identity.ProtocolAdmin, identity.Expect(identity.Server, "")), struct{}{}
	})
	if err == nil { // it is the server that judges last
		conn.Close()
	}
	line := r.log.wait(t, "connection refused")
	if !strings.Contains(line, "127.0.0.1") || !strings.Contains(line, "laptop") {
		t.Errorf("the log says %s (and the portal %v)", line, err)
	}
	leave() // both say so
	for range 2 {
		if err := <-gone; err != nil {
			t.Error(err)
		}
	}
	r.wantNobody()
}

// TestServerThatStopsSaysSoOverUDP: its last word is on its way before its socket is closed.
func TestServerThatStopsSaysSoOverUDP(t *testing.T) {
	r := newRig(t, "laptop")
	address := r.overUDP()
	lost := make(chan error, 1)
	d := dialer[wire.ToPortal, wire.FromPortal](r, "laptop", wire.ParseToPortal)
	d.Last = func() control.Way { return control.Way{Address: address, UDP: true} }
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Keep(ctx, []string{address}, func(_ context.Context, c *control.Conn[wire.ToPortal, wire.FromPortal], _ wire.Welcome) error {
		go r.shutdown()
		err := c.Run(t.Context(), func(wire.ToPortal) error { return nil })
		cancel()
		lost <- err
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := <-lost; err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("the portal heard %v", err)
	}
}

// TestUDPPortThatAnotherHas: where nobody has asked for it the server does without it, and says so; where
// somebody has, it does not start.
func TestUDPPortThatAnotherHas(t *testing.T) {
	r := newRig(t)
	r.shutdown()
	other, err := net.ListenPacket("udp", r.cfg.Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.start()
	if line := r.log.wait(t, "level=WARN"); !strings.Contains(line, "listen on "+r.cfg.Listen[0]+" over UDP") || !strings.Contains(line, "listen_udp") {
		t.Errorf("the log says %s", line)
	}
	r.shutdown()
	r.cfg.UDPNamed = true
	if err := Run(t.Context(), r.cfg, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), `choose another port in "listen_udp"`) {
		t.Errorf("it ended with %v", err)
	}
}
