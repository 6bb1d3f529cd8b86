package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/gate"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/reserve"
)

// acceptPause is how long accepting rests when descriptors have run out.
const acceptPause = 100 * time.Millisecond

// accept serves the connections of one listener until ctx is cancelled, and
// waits for them.
func (d *daemon) accept(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	var waiting gate.Gate
	for {
		c, err := reserve.Accept(l)
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			d.often.Warn("connection not accepted", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		leave := waiting.Enter(c)
		d.receive(ctx, &connections, &guest{
			from: c.RemoteAddr(), shake: func(ctx context.Context) (control.Channel, error) { return d.shakeTCP(ctx, c) },
			proven: leave, close: func() { c.Close() },
		})
	}
}

// guest is a connection that came in.
type guest struct {
	from   net.Addr
	shake  func(context.Context) (control.Channel, error) // is called once
	proven func()                                         // its peer has proven itself; it may be called again
	close  func()
}

// shakeTCP makes the handshake of a TCP connection, or hands it over to the relay on this
// machine; then the error is errForRelay.
func (d *daemon) shakeTCP(ctx context.Context, raw net.Conn) (control.Channel, error) {
	o := d.opening(raw)
	if o == nil {
		return control.Handshake(ctx, raw, d.tls)
	}
	c, err := control.Handshake(ctx, o, o.config(d.tls))
	if errors.Is(err, errForRelay) {
		d.handOver(o)
	}
	return c, err
}

// receive serves a connection, in goroutines of its own.
func (d *daemon) receive(ctx context.Context, connections *sync.WaitGroup, g *guest) {
	connections.Go(func() {
		serve := d.meet(ctx, g)
		g.proven()
		if serve == nil {
			g.close()
			return
		}
		// On a stack of its own: to let somebody in takes 16 KB, and to wait for
		// what he says, for days, 4.
		connections.Go(func() {
			defer g.close()
			serve()
		})
	})
}

// meet lets one peer prove itself and hands it to the hub. It returns what serves it;
// nil: nothing is left to serve.
func (d *daemon) meet(ctx context.Context, g *guest) (serve func()) {
	from := g.from.String()
	a, err := d.greeted(ctx, g)
	if a == nil && err == nil || errors.Is(err, errForRelay) {
		return nil
	}
	if err != nil {
		d.unproven(ctx, from, err)
		return nil
	}
	g.proven()
	if a.Peer.ID.Role == identity.Relay {
		return d.hub.MeetRelay(ctx, a, from)
	}
	return d.hub.MeetPortal(ctx, a, from)
}

// unproven counts and logs a connection that was not let in.
func (d *daemon) unproven(ctx context.Context, from string, err error) {
	d.refused.Add(refusedFor(err))
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
		d.log.Debug("connection closed before it was proven", "from", from, "error", err)
		return
	}
	d.often.Warn("connection refused", "from", from, "error", err)
}

// greeted lets one peer prove itself and greet. Who joins, or is an admin, is served here
// to his end: then it returns nil.
func (d *daemon) greeted(ctx context.Context, g *guest) (*control.Accepted, error) {
	early, cancel := context.WithTimeout(ctx, control.HandshakeTimeout)
	defer cancel()
	c, err := g.shake(early)
	if err != nil {
		return nil, err
	}
	switch c.ConnectionState().NegotiatedProtocol {
	case identity.ProtocolEnrol:
		return nil, d.join(ctx, early, c, g.proven)
	case identity.ProtocolAdmin:
		g.proven()
		return nil, d.admins.serve(ctx, c)
	}
	return control.Greeted(early, c)
}

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func isDenied(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}
