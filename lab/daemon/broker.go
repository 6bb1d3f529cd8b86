package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// Broker plays the server to relays, so that a test has sessions without portals: it makes them at will and knows the
// secrets of both legs. A relay that comes back finds it again. Its methods belong to the test's goroutine.
type Broker struct {
	t    testing.TB
	host *topo.Host
	bin  string // folder of the programs
	own  *Daemon
	tls  *tls.Config
	log  *slog.Logger

	mu      sync.Mutex // guards the following
	relays  map[string]*brokered
	waiting map[wire.SessionID]chan<- wire.Message
	over    map[wire.SessionID]wire.SessionOver
	running sync.WaitGroup
}

// brokered is a relay that is connected.
type brokered struct {
	conn  *control.Conn[wire.FromRelay, wire.ToRelay]
	ready bool
	held  []wire.HeldSession // that it came with
}

// NewBroker makes a broker on the host.
func NewBroker(t testing.TB, host *topo.Host) *Broker {
	t.Helper()
	b := &Broker{
		t: t, host: host, bin: host.Dir(),
		log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		relays:  make(map[string]*brokered),
		waiting: make(map[wire.SessionID]chan<- wire.Message),
		over:    make(map[wire.SessionID]wire.SessionOver),
	}
	if err := Install(b.bin); err != nil {
		t.Fatal(err)
	}
	b.own = newDaemon(t, b.bin, "server", host)
	b.run("init", "--dir", b.own.dir, "--domain", Domain, "--address", host.Addr().String())
	credentials := Credentials(t, b.own.dir, identity.Server)
	b.tls = credentials.ServerTLS(identity.ProtocolControl, identity.Expect(identity.Relay, ""))
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(b.running.Wait) // after the listener was closed
	ln := host.Listen(443)
	t.Cleanup(stop)
	b.running.Go(func() { b.listen(ctx, ln) })
	return b
}

// run runs a command of the server's program.
func (b *Broker) run(args ...string) {
	b.t.Helper()
	if _, err := b.own.output(b.own.unconfigured(args...)); err != nil {
		b.t.Fatal(err)
	}
}

// Relay adds a relay, starts it and waits until the broker has it.
func (b *Broker) Relay(host *topo.Host, options ...Option) *Relay {
	b.t.Helper()
	r := &Relay{Daemon: newDaemon(b.t, b.bin, "relay", host), ready: b.isReady}
	b.run("issue", "relay", r.name, "--address", addresses(host), "--out", r.dir, "--config", b.own.config())
	r.setUp(options)
	return r
}

// listen takes relays until the listener is closed.
func (b *Broker) listen(ctx context.Context, ln net.Listener) {
	for {
		raw, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				b.log.Error("the broker takes no relay", "error", err)
			}
			return
		}
		b.running.Go(func() {
			if err := b.serve(ctx, raw); err != nil {
				raw.Close()
				b.log.Info("a relay of the broker is gone", "reason", err)
			}
		})
	}
}

// serve is one relay's connection, to its end.
func (b *Broker) serve(ctx context.Context, raw net.Conn) error {
	accepted, err := control.Accept(ctx, raw, b.tls)
	if err != nil {
		return err
	}
	conn := control.WelcomeRelay(accepted, wire.Welcome{Version: wire.ControlVersion, Time: uint64(time.Now().Unix())}, b.log)
	r := &brokered{conn: conn}
	name := accepted.Peer.ID.Name
	b.mu.Lock()
	b.relays[name] = r
	b.mu.Unlock()
	err = conn.Run(ctx, func(m wire.FromRelay) error { return b.handle(r, m) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.relays[name] == r {
		delete(b.relays, name)
	}
	return err
}

// handle takes what a relay says, and hands answers to who waits for them.
func (b *Broker) handle(r *brokered, m wire.FromRelay) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var id wire.SessionID
	switch m := m.(type) {
	case wire.RelayReady:
		r.ready = true
		r.held = append(r.held, m.Sessions...)
		return nil
	case wire.SessionReady:
		id = m.ID
	case wire.SessionRefused:
		id = m.ID
	case wire.SessionOver:
		id = m.ID
		b.over[id] = m
	}
	if answer, ok := b.waiting[id]; ok {
		delete(b.waiting, id)
		answer <- m
	}
	return nil
}

// relay is a relay that is connected.
func (b *Broker) relay(name string) (*brokered, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, ok := b.relays[name]; ok && r.ready {
		return r, nil
	}
	return nil, fmt.Errorf("relay %s is not connected to the broker", name)
}

func (b *Broker) isReady(name string) error {
	_, err := b.relay(name)
	return err
}

// Held are the sessions that a relay has said it holds, when it connected last.
func (b *Broker) Held(r *Relay) []wire.HeldSession {
	b.t.Helper()
	connected, err := b.relay(r.name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return connected.held
}

// Send tells a relay something.
func (b *Broker) Send(r *Relay, m wire.ToRelay) {
	b.t.Helper()
	connected, err := b.relay(r.name)
	if err != nil {
		b.t.Fatal(err)
	}
	connected.conn.Send(m)
}

// Terms are what a relay is asked to hold a session for.
type Terms struct {
	Portals    [2]string       // names; empty ones are made up
	Sources    [2]netip.Addr   // the addresses that the legs' portals seem to come from
	Lifetime   time.Duration   // whole seconds that a session lives without traffic; 0: 10 minutes
	Transports wire.Transports // 0: packet mode, splice mode and UDP
}

// Session is one that a broker has made.
type Session struct {
	ID      wire.SessionID
	Secrets [2]wire.Secret
	Ready   wire.SessionReady // the relay's answer
}

// Open asks a relay to hold a session. It ends the test if the relay refuses.
func (b *Broker) Open(r *Relay, terms Terms) Session {
	b.t.Helper()
	s, err := b.TryOpen(r, terms)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// TryOpen is Open for a session that the relay may refuse.
func (b *Broker) TryOpen(r *Relay, terms Terms) (Session, error) {
	b.t.Helper()
	s := Session{ID: wire.NewSessionID(), Secrets: [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}}
	if terms.Lifetime == 0 {
		terms.Lifetime = 10 * time.Minute
	}
	if terms.Transports == 0 {
		terms.Transports = wire.TransportPacket | wire.TransportSplice | wire.TransportUDP
	}
	create := wire.CreateSession{ID: s.ID, Lifetime: uint32(terms.Lifetime.Seconds()), Transports: terms.Transports}
	for i := range create.Legs {
		if terms.Portals[i] == "" {
			terms.Portals[i] = fmt.Sprint("portal-", i)
		}
		create.Legs[i] = wire.Leg{Portal: terms.Portals[i], Secret: s.Secrets[i], Source: terms.Sources[i]}
	}
	answer := make(chan wire.Message, 1)
	b.mu.Lock()
	b.waiting[s.ID] = answer
	b.mu.Unlock()
	b.Send(r, create)
	select {
	case m := <-answer:
		if ready, ok := m.(wire.SessionReady); ok {
			s.Ready = ready
			return s, nil
		}
		return s, fmt.Errorf("relay %s refuses a session: %+v", r.name, m)
	case <-time.After(patience):
		b.t.Fatalf("relay %s does not answer within %v", r.name, patience)
		return s, nil
	}
}

// Close ends a session. One that the relay has ended already stays so.
func (b *Broker) Close(r *Relay, s Session) {
	b.t.Helper()
	b.Send(r, wire.EndSession{ID: s.ID, Reason: wire.ReasonShutdown})
}

// Over is the relay's word that a session is over, if it has said that.
func (b *Broker) Over(s Session) (wire.SessionOver, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	over, ok := b.over[s.ID]
	return over, ok
}
