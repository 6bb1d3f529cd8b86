package entry

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/users"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
)

// TestListenersFollowTheOwnersList: a list that is changed while the portal runs closes
// what it does not name any more, of every kind, and opens it again.
func TestListenersFollowTheOwnersList(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	l.Close()
	for _, listen := range []string{"tcp://" + free, "udp://" + free, "unix://" + t.TempDir() + "/s", "stdio:"} {
		e := newEntry(noTunnels{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		e.Apply(grants.Change{Kind: grants.Begin, Grant: grant.Grant{Permission: grant.Permission{
			Forward: "web", Listen: endpoint.MustParse(listen), Target: endpoint.MustParse("tcp://127.0.0.1:1"), Entry: grant.Party{Name: "ann"}, Exit: grant.Party{Name: "factory"},
		}}})
		waitState(t, e, func(s State) bool { return s.Listening })
		for range 3 {
			e.SetOwner(allow.NewList(), users.List{})
			if strings.HasPrefix(listen, "tcp") { // closed when SetOwner returns
				if c, err := net.Dial("tcp", free); err == nil {
					c.Close()
					t.Errorf("%s: somebody could connect after the list had changed", listen)
				}
			}
			waitState(t, e, func(s State) bool { return !s.Listening && strings.Contains(s.Error, "not in the [listen] list") })
			e.SetOwner(allow.List{}, users.List{})
			waitState(t, e, func(s State) bool { return s.Listening })
		}
		cancel()
		<-done
	}
}
