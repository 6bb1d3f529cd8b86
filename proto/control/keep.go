package control

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// firstBackoff and maxBackoff bound the pause between attempts. Each pause
	// is drawn between half and all of its bound, which doubles: so a thousand
	// portals that lost one server do not come back in the same moment, and
	// all are back within maxBackoff of its return.
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 20 * time.Second
	// settled is how long a connection must have lived for the next pause to
	// start from firstBackoff again.
	settled = 10 * time.Second
)

// defaultPorts are tried for a server that was given without a port.
var defaultPorts = []string{"443", "80"}

// Addresses returns the "host:port" forms to try for a list of servers as
// config files hold it: an entry without a port stands for 443 and 80.
func Addresses(servers []string) []string {
	var list []string
	for _, s := range servers {
		if _, _, err := net.SplitHostPort(s); err == nil {
			list = append(list, s)
			continue
		}
		for _, p := range defaultPorts {
			list = append(list, net.JoinHostPort(trimBrackets(s), p))
		}
	}
	return list
}

func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// Keep keeps one connection to one of the addresses for ever: it tries them in
// turn, beginning with the one that worked last, pauses with jitter between
// rounds, and calls use with each connection. use runs the connection
// (Conn.Run) and returns when that ends. Keep returns nil when ctx is
// cancelled.
func (d *Dialer[In, Out]) Keep(ctx context.Context, addresses []string, use func(context.Context, *Conn[In, Out], wire.Welcome) error) error {
	var backoff backoff
	for at := 0; ; {
		var lived time.Duration
		conn, welcome, next := d.dialAny(ctx, addresses, at)
		if conn != nil {
			at = next
			d.Log.Info("connected to server", "address", addresses[at], "server", conn.Peer().ID.Name)
			since := time.Now()
			err := use(ctx, conn, welcome)
			conn.end(nil) // in case it was never run
			if ctx.Err() != nil {
				return nil
			}
			d.Log.Warn("server connection lost", "address", addresses[at], "error", errorText(err))
			lived = time.Since(since)
		}
		timer := time.NewTimer(backoff.pause(lived))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// backoff chooses the pauses between attempts. The zero backoff begins anew.
type backoff struct{ bound time.Duration }

// pause returns how long to wait after a connection that lived so long; 0:
// there was none.
func (b *backoff) pause(lived time.Duration) time.Duration {
	if b.bound == 0 || lived > settled {
		b.bound = firstBackoff
	}
	p := b.bound/2 + rand.N(b.bound/2)
	b.bound = min(2*b.bound, maxBackoff)
	return p
}

// dialAny tries each address once, from addresses[at] on.
func (d *Dialer[In, Out]) dialAny(ctx context.Context, addresses []string, at int) (*Conn[In, Out], wire.Welcome, int) {
	for i := range addresses {
		n := (at + i) % len(addresses)
		conn, welcome, err := d.Dial(ctx, addresses[n])
		if err == nil {
			return conn, welcome, n
		}
		if ctx.Err() != nil {
			break
		}
		d.Log.Warn("server not reached", "error", err)
	}
	return nil, wire.Welcome{}, at
}

func errorText(err error) string {
	var bye *Goodbye
	switch {
	case err == nil:
		return "closed"
	case errors.As(err, &bye):
		return bye.Error()
	}
	return err.Error()
}
