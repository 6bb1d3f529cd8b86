package entry

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/portal/internal/users"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// asked counts who asks for a tunnel.
type asked struct{ n atomic.Int32 }

func (a *asked) Tunnel(context.Context, string, wire.GrantID) (*tunnel.Tunnel, error) {
	a.n.Add(1)
	return nil, &peers.Unavailable{Reason: wire.ReasonPeerOffline}
}

// T39: where the owner has named users, nobody else's connection comes as far as a tunnel.
func TestUsersThatAreNotNamedAreRefusedBeforeATunnel(t *testing.T) {
	me := uint32(os.Geteuid())
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := "tcp://" + free.Addr().String()
	free.Close()
	socket := filepath.Join(t.TempDir(), "s")
	for _, c := range []struct {
		listen    string
		list      users.List
		mode      os.FileMode // of a Unix socket
		forwarded bool
	}{
		{tcp, users.List{}, 0, true},
		{tcp, users.NewList(me), 0, true},
		{tcp, users.NewList(me + 1), 0, false},
		{tcp, users.NewList(), 0, false},
		{"unix://" + socket, users.List{}, 0o600, true},
		{"unix://" + socket, users.NewList(me), 0o666, true},
		{"unix://" + socket, users.NewList(me + 1), 0o666, false},
	} {
		tunnels := &asked{}
		e := newEntry(tunnels)
		e.SetOwner(allow.List{}, c.list)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		at := endpoint.MustParse(c.listen)
		e.Apply(grants.Change{Kind: grants.Begin, Grant: grant.Grant{Permission: grant.Permission{
			Forward: "web", Listen: at, Target: endpoint.MustParse("tcp://127.0.0.1:1"), Entry: grant.Party{Name: "ann"}, Exit: grant.Party{Name: "factory"},
		}}})
		waitState(t, e, func(s State) bool { return s.Listening })
		network, address := "tcp", at.HostPort()
		if c.mode != 0 {
			network, address = "unix", socket
			if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != c.mode {
				t.Errorf("%v: mode %v, %v, want %v", c.list, info.Mode(), err, c.mode)
			}
		}
		if err := exchange(t, network, address); err == nil || network == "tcp" && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, %v: %v, want a reset", c.listen, c.list, err)
		}
		cancel()
		<-done
		if got := tunnels.n.Load() > 0; got != c.forwarded {
			t.Errorf("%s, %v: a tunnel asked for %t, want %t", c.listen, c.list, got, c.forwarded)
		}
		var foreign uint64
		if !c.forwarded {
			foreign = 1
		}
		if s := e.States()[0]; s.Foreign != foreign || s.Accepted+s.Foreign != 1 {
			t.Errorf("%s, %v: %d of other users, %d accepted", c.listen, c.list, s.Foreign, s.Accepted)
		}
	}
}

// exchange connects, writes, and waits for the end, which it returns.
func exchange(t *testing.T, network, address string) error {
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("not to be forwarded"))
	_, err = conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("nothing came, not even an end")
	}
	return err
}

// TestNoDatagramsWhereUsersAreNamed: nobody could say of one whose it is.
func TestNoDatagramsWhereUsersAreNamed(t *testing.T) {
	e := newEntry(noTunnels{})
	e.SetOwner(allow.List{}, users.NewList(0))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	e.Apply(grants.Change{Kind: grants.Begin, Grant: grant.Grant{Permission: grant.Permission{
		Forward: "dns", Listen: endpoint.MustParse("udp://127.0.0.1:1"), Target: endpoint.MustParse("udp://127.0.0.1:1"), Entry: grant.Party{Name: "ann"}, Exit: grant.Party{Name: "factory"},
	}}})
	waitState(t, e, func(s State) bool { return strings.Contains(s.Error, "who sends a datagram cannot be told") })
	cancel()
	<-done
}
