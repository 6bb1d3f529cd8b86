package control

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/identity"
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

// Keep keeps one connection to one of the addresses, or of those of More, for
// ever: it tries them in turn, beginning with the one that worked last, pauses
// with jitter between rounds, and calls use with each connection. use runs the
// connection (Conn.Run) and returns when that ends. Keep returns nil when ctx is
// cancelled.
func (d *Dialer[In, Out]) Keep(ctx context.Context, addresses []string, use func(context.Context, *Conn[In, Out], wire.Welcome) error) error {
	var backoff backoff
	var last Way
	var dead suspect
	for {
		var lived time.Duration
		round, hurried := d.round(ctx)
		if d.Last != nil {
			last = d.Last()
		}
		conn, welcome, way := d.dialAny(round, d.order(last.Address, addresses), addresses, last)
		hurry := hurried()
		if conn != nil {
			if last = way; d.Reached != nil {
				d.Reached(way)
			}
			clear(d.named)
			clear(d.refused)
			dead.judge(conn.pauses)
			if hurry || d.hurried() {
				conn.Probe() // it may have begun in the network before
			}
			d.Log.Info("connected to server", "address", way.Address, "transport", conn.RemoteAddr().Network(), "server", conn.Peer().ID.Name)
			since := time.Now()
			err := use(ctx, conn, welcome)
			conn.end(nil) // in case it was never run
			if ctx.Err() != nil {
				return nil
			}
			d.Log.Warn("server connection lost", "address", way.Address, "error", errorText(err))
			lived = time.Since(since)
			dead = suspect{conn.pauses, conn.suspect(), time.Now()}
		}
		if !hurry || conn != nil {
			hurry = d.wait(ctx, backoff.pause(lived), d.Hurry)
		}
		if hurry {
			backoff.bound = 0
			d.wait(ctx, hurryPause/2+rand.N(hurryPause/2), nil)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// hurryPause bounds the pause before an attempt that is in a hurry: a network
// that flaps is no reason to dial all the time.
const hurryPause = 200 * time.Millisecond

// wait waits, until ctx is over or hurry cuts it short, and tells whether it did.
func (d *Dialer[In, Out]) wait(ctx context.Context, pause time.Duration, hurry <-chan struct{}) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
		return true
	case <-ctx.Done():
	}
	return false
}

// round returns a context of one round of attempts, which Hurry cuts short. The
// function it returns ends it and tells whether that has happened.
func (d *Dialer[In, Out]) round(ctx context.Context) (context.Context, func() (hurried bool)) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	hurried := false
	watching.Go(func() {
		select {
		case <-d.Hurry:
			hurried = true
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() bool {
		cancel()
		watching.Wait()
		return hurried
	}
}

// hurried takes a Hurry that came when nobody waited.
func (d *Dialer[In, Out]) hurried() bool {
	select {
	case <-d.Hurry:
		return true
	default:
		return false
	}
}

// order returns all addresses to try, each once, the last that worked first.
func (d *Dialer[In, Out]) order(last string, addresses []string) []string {
	list := slices.Clone(addresses)
	if d.More != nil {
		for _, a := range d.More() {
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	at := max(0, slices.Index(list, last))
	return slices.Concat(list[at:], list[:at])
}

// suspect is a silence after which a connection was found dead.
type suspect struct {
	pauses  *Pauses
	silence time.Duration
	at      time.Time
}

// soonAgain is how soon the next connection must stand for the network to
// be blamed for the end of the one before: the server was there all the time.
const soonAgain = 30 * time.Second

// judge takes that there is a connection again. It is called once.
func (s *suspect) judge(pauses *Pauses) {
	if s.silence > 0 && s.pauses == pauses && time.Since(s.at) < soonAgain {
		pauses.broke(time.Now(), s.silence)
	}
	*s = suspect{}
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

// dialAny tries each address once: those of one host together (dial), one host after the other.
// Permit judges those that are not of trusted.
func (d *Dialer[In, Out]) dialAny(ctx context.Context, addresses, trusted []string, last Way) (*Conn[In, Out], wire.Welcome, Way) {
	for _, ports := range byHost(addresses, trusted) {
		permit := d.Permit
		if slices.Contains(trusted, ports[0]) {
			permit = nil
		}
		refused := 0
		conn, welcome, way := d.dial(ctx, ports, last, d.refused[ports[0]] >= refusals, permit, func(address string, err error) {
			if ctx.Err() != nil {
				return // it was given up
			}
			if errors.Is(err, syscall.ECONNREFUSED) {
				refused++
			}
			if d.Failed != nil {
				d.Failed(address, err)
			}
			d.warn(address, err)
		})
		if conn != nil {
			return conn, welcome, way
		}
		if ctx.Err() != nil {
			break
		}
		d.refuses(ports[0], refused == len(ports))
	}
	return nil, wire.Welcome{}, Way{}
}

// refuses counts the rounds in which a server has refused TCP at all its ports, the first of which
// is given.
func (d *Dialer[In, Out]) refuses(port string, all bool) {
	if d.refused == nil {
		d.refused = make(map[string]int)
	}
	if !all {
		delete(d.refused, port)
		return
	}
	d.refused[port]++
}

// byHost puts the addresses of one host together, in their order, if all are trusted or none.
func byHost(addresses, trusted []string) (groups [][]string) {
	type group struct {
		host    string
		trusted bool
	}
	var known []group
	for _, a := range addresses {
		host, _, _ := net.SplitHostPort(a) // CheckServer has seen it
		g := group{host, slices.Contains(trusted, a)}
		i := slices.Index(known, g)
		if i < 0 {
			i = len(known)
			known, groups = append(known, g), append(groups, nil)
		}
		groups[i] = append(groups[i], a)
	}
	return groups
}

// warn logs why a server was not reached. Who answers in its place does so at every attempt, and
// is named once.
func (d *Dialer[In, Out]) warn(address string, err error) {
	level := slog.LevelWarn
	if e, ok := errors.AsType[*identity.Intercepted](err); ok {
		if d.named[address] == e.Error() {
			level = slog.LevelDebug
		}
		if d.named == nil {
			d.named = make(map[string]string)
		}
		d.named[address] = e.Error()
	} else {
		delete(d.named, address)
	}
	d.Log.Log(context.Background(), level, "server not reached", "error", err)
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
