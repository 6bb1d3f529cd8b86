package entry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/logs"
	"github.com/netport/netport/proto/reserve"
	"github.com/netport/netport/proto/wire"
)

const (
	// firstRetry and maxRetry bound the pause before a listener that could not
	// be opened is tried again.
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
	// maxAcceptPause bounds the pause of an accept loop that finds no
	// descriptors.
	maxAcceptPause = 500 * time.Millisecond
)

// forward is one listener that is granted now, with its targets (targets.go).
//
//	waiting --- listener opened ---> listening
//	   ^  \____ cannot be opened: retry ____/
//
//	drain, from either: takes nothing more, what it has accepted goes on
//	close, from any: ended
//
// Its run goroutine owns the listener's accept loop.
type forward struct {
	entry *Entry
	log   *slog.Logger
	often *slog.Logger    // for what clients cause
	ctx   context.Context // ends with the forward
	stop  context.CancelFunc
	again chan struct{} // capacity 1: try to listen now
	shut  chan struct{} // closed when nothing more is taken

	accepted, refused, forbidden, foreign, dropped atomic.Uint64

	mu       sync.Mutex                 // guards the following
	targets  []*target                  // at least one, in the order of their ranks
	listener interface{ Close() error } // nil: none is open
	anew     bool                       // it was closed to be opened again
	err      error                      // why not
	since    time.Time
}

func newForward(e *Entry, g grant.Grant) *forward {
	ctx, stop := context.WithCancel(e.ctx)
	log := e.log.With("listen", g.Listen.String())
	return &forward{
		entry: e, log: log, often: logs.Steady(log, logs.Often),
		ctx: ctx, stop: stop, again: make(chan struct{}, 1), shut: make(chan struct{}), targets: []*target{newTarget(g)}, since: time.Now(),
	}
}

// close ends the forward: its listener is closed when it returns.
func (f *forward) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutLocked()
	f.stop() // first: what the listener says then is no news
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
}

// drain has the forward take nothing more. Its listener is closed when it
// returns, but for one of datagrams, by which the clients there are get their answers.
func (f *forward) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutLocked()
	if conn, ok := f.listener.(*net.UDPConn); ok {
		conn.SetReadDeadline(time.Unix(1, 0)) // to look
	} else if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	f.err, f.since = errStopping, time.Now()
}

var errStopping = errors.New("the portal is stopping")

func (f *forward) shutLocked() {
	if !f.draining() {
		close(f.shut)
	}
}

// draining reports whether nothing more is taken.
func (f *forward) draining() bool {
	select {
	case <-f.shut:
		return true
	default:
		return false
	}
}

func (f *forward) retry() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// reopen closes the listener, and has run open it again if that is still allowed.
func (f *forward) reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil && !f.draining() {
		f.listener.Close()
		f.listener, f.anew = nil, true
	}
}

// reopens reports whether the listener was closed to be opened again.
func (f *forward) reopens() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	anew := f.anew
	f.anew = false
	return anew
}

// run listens until the forward is closed or drains.
func (f *forward) run() {
	listen := f.first().Listen
	pause, said := firstRetry, ""
	for !f.draining() {
		serve, err := f.open(listen)
		if err == nil {
			f.log.Info("listening", "forward", f.first().Forward)
			err = serve()
			if f.draining() {
				return
			}
			pause, said = firstRetry, ""
			if f.reopens() {
				continue
			}
		}
		f.mu.Lock()
		f.listener, f.err, f.since = nil, err, time.Now()
		f.mu.Unlock()
		if text := err.Error(); text != said { // once, not at each attempt
			said = text
			f.log.Warn("not listening", "forward", f.first().Forward, "error", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-f.again:
		case <-f.shut:
		}
		timer.Stop()
		pause = min(2*pause, maxRetry)
	}
}

// open opens the listener and returns what serves it.
func (f *forward) open(e endpoint.Endpoint) (serve func() error, err error) {
	owner := f.entry.owner.Load()
	if err := owner.list.Listen(e); err != nil {
		return nil, err
	}
	switch e.Scheme() {
	case endpoint.Stdio: // "netport-portal connect" is its listener
		l := make(standing)
		return l.serve(f.shut), f.opened(owner, l)
	case endpoint.UDP:
		if owner.users.Written() {
			return nil, errors.New("only named users may connect (listen.users in the configuration), and who sends a datagram cannot be told for sure: use TCP or a Unix socket, or leave the key out")
		}
		conn, err := listenUDP(f.ctx, e)
		if err != nil {
			return nil, err
		}
		return func() error { return f.serveUDP(conn) }, f.opened(owner, conn)
	case endpoint.Unix:
		l, err := listenUnix(e.Path(), owner.users.Written())
		if err != nil {
			return nil, err
		}
		return func() error { return f.serve(l) }, f.opened(owner, l)
	}
	l, err := listenTCP(f.ctx, e)
	if err != nil {
		return nil, err
	}
	if err := owner.users.Ready(l); err != nil {
		l.Close()
		return nil, err
	}
	return func() error { return f.serve(l) }, f.opened(owner, l)
}

// standing is the listener of a forward whose clients come by a command.
type standing chan struct{}

// Close ends serve.
func (s standing) Close() error { close(s); return nil }

func (s standing) serve(shut <-chan struct{}) func() error {
	return func() error {
		select {
		case <-s:
		case <-shut:
		}
		return net.ErrClosed
	}
}

// opened makes l the forward's listener, unless that was closed meanwhile or the owner
// has another word now than the one that it was opened by.
func (f *forward) opened(owner *owned, l interface{ Close() error }) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.draining() {
		l.Close()
		return net.ErrClosed
	}
	if f.entry.owner.Load() != owner {
		l.Close()
		return errors.New("the configuration has changed: it is tried again")
	}
	f.listener, f.err, f.since = l, nil, time.Now()
	return nil
}

// serve accepts until the listener is closed.
func (f *forward) serve(l net.Listener) error {
	defer l.Close()
	var pause time.Duration
	opened := make(chan struct{}) // of the connection before
	close(opened)
	for {
		conn, err := reserve.Accept(l)
		switch {
		case err == nil:
			pause = 0
			before, mine := opened, make(chan struct{})
			f.entry.tasks.Go(func() { f.carry(conn, before, mine) })
			opened = mine
			continue
		case errors.Is(err, net.ErrClosed):
			return err
		case errors.Is(err, syscall.ECONNABORTED):
			continue // the client was gone before we came to it
		}
		// Out of descriptors, most likely: those in use come back.
		if pause == 0 {
			f.log.Warn("connection not accepted", "forward", f.first().Forward, "error", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), maxAcceptPause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-f.shut:
		}
		timer.Stop()
	}
}

// carry carries one accepted connection. Its stream is opened after that of the
// connection before, and then closes opened: an application may count on which
// of its connections the server gets first.
func (f *forward) carry(conn net.Conn, before <-chan struct{}, opened chan struct{}) {
	begun := sync.OnceFunc(func() { close(opened) })
	defer begun()
	source := addrPort(conn.RemoteAddr())
	list := f.order(source.Addr())
	if len(list) == 0 {
		reset(conn)
		f.forbid(source)
		return
	}
	if err := f.entry.owner.Load().users.Check(conn); err != nil {
		reset(conn)
		f.foreign.Add(1)
		f.often.Warn("client refused", "forward", f.first().Forward, "source", text(source), "error", err)
		return
	}
	f.accepted.Add(1)
	if tcp, ok := conn.(*net.TCPConn); ok && !source.Addr().IsLoopback() {
		f.entry.vanished.Add(tcp)
	}
	start := time.Now()
	g, totals, err := f.carryTo(tunnel.WithBegun(f.ctx, begun), before, list, source, conn)
	if err != nil {
		f.ended(g, source, err)
		return
	}
	f.log.Debug("connection ended", "forward", g.Forward, "peer", g.Exit.Name, "source", source.String(), "sent", totals.Sent, "received", totals.Received, "after", time.Since(start).Round(time.Millisecond))
}

// forbid counts and logs a client whose address is not granted.
func (f *forward) forbid(source netip.AddrPort) {
	f.forbidden.Add(1)
	g := f.first()
	f.often.Warn("client refused", "forward", g.Forward, "source", source.String(), "reason", wire.ReasonClientForbidden.String(), "granted", g.Clients.String())
}

// ended logs what came to nothing under a grant, or to a bad end.
func (f *forward) ended(g grant.Grant, source netip.AddrPort, err error) {
	f.refused.Add(1)
	if f.draining() { // the forward's own end has been logged
		return
	}
	var end *tunnel.EndError
	log := f.often.With("forward", f.first().Forward, "peer", g.Exit.Name, "source", text(source)) // it may have another name by now
	if errors.As(err, &end) && end.Reason == wire.ReasonTargetReset {
		// One of the applications wanted it so.
		log.Debug("connection reset", "said-by", saidBy(end, g))
		return
	}
	if end != nil {
		log.Warn("connection cut", "reason", end.Reason.String(), "said-by", saidBy(end, g), "text", end.Text)
		return
	}
	log.Warn("connection refused", "error", err)
}

// text names a client. One of a Unix socket has no address.
func text(source netip.AddrPort) string {
	if !source.IsValid() {
		return "a local client"
	}
	return source.String()
}

func saidBy(end *tunnel.EndError, g grant.Grant) string {
	if end.Peer {
		return g.Exit.Name
	}
	return g.Entry.Name
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	return netip.AddrPort{}
}
