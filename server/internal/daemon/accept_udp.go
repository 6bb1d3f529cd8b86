package daemon

import (
	"context"
	"net"
	"sync"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/gate"
	"github.com/netport/netport/proto/overquic"
)

// acceptUDP is accept for those who come over UDP, where their network shuts TCP. It closes the
// socket.
func (d *daemon) acceptUDP(ctx context.Context, socket *net.UDPConn) error {
	var share gate.Share
	l, err := overquic.Listen(socket, d.tls, overquic.Options{
		Enter: share.Enter, Failed: func(from net.Addr, err error) { d.unproven(ctx, from.String(), err) },
	})
	if err != nil {
		return err
	}
	defer l.Close()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		c, err := l.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case err != nil:
			return err
		}
		d.receive(ctx, &connections, &guest{
			from: c.RemoteAddr(), shake: func(ctx context.Context) (control.Channel, error) { return c.Take(ctx) },
			proven: c.Proven, close: func() { c.Close() },
		})
	}
}
