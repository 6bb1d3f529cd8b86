package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// Ports of the broker and of its relay's sessions, beside those of the real server and relay on the same machines.
const (
	brokerPort          = 7000
	firstPort, lastPort = 12000, 13000
	sessionLife         = 10 * time.Minute
	entryPump, exitPump = "pump-entry", "pump-exit"
)

// broker plays the server to a relay of its own, so that the bench can use a relay without portals: it makes sessions
// and holds both legs of each.
type broker struct {
	w     *world
	dir   string // identities, in folders by name
	relay *control.Conn[wire.FromRelay, wire.ToRelay]
	log   *slog.Logger

	mu      sync.Mutex // guards the following
	waiting map[wire.SessionID]chan<- wire.Message
}

// session is one that the relay holds.
type session struct {
	id       wire.SessionID
	secrets  [2]wire.Secret
	tcp, udp netip.AddrPort
}

// startBroker starts the broker and its relay, and waits until the two are connected.
func (w *world) startBroker() (*broker, error) {
	b := &broker{
		w: w, dir: filepath.Join(w.server.Dir(), "broker"),
		log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		waiting: make(map[wire.SessionID]chan<- wire.Message),
	}
	w.server.Run(w.network.Program("server"), "init", "--dir", b.dir, "--domain", "bench.example",
		"--address", netip.AddrPortFrom(w.server.Addr(), brokerPort).String())
	issue := func(args ...string) {
		name := args[1]
		w.server.Run(w.network.Program("server"), append([]string{"issue", "--config", b.folder("config.toml"), "--out", b.folder(name)}, args...)...)
	}
	issue("relay", "relay", "--address", w.relay.Addr().String())
	issue("portal", entryPump)
	issue("portal", exitPump)
	config := filepath.Join(b.folder("relay"), "config.toml")
	if err := daemon.EditConfig(config, daemon.Set("first_port", firstPort), daemon.Set("last_port", lastPort)); err != nil {
		return nil, err
	}
	credentials, err := loadCredentials(b.dir, identity.Server)
	if err != nil {
		return nil, err
	}
	ln := w.server.Listen(brokerPort)
	relay := w.relay.Start(w.relay.Command(w.network.Program("relay"), "run", "--config", config))
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	raw, err := ln.Accept()
	if err != nil {
		return nil, fmt.Errorf("the relay does not connect: %w\n%s", err, relay.Log())
	}
	accepted, err := control.Accept(ctx, raw, credentials.ServerTLS(identity.ProtocolControl, identity.Expect(identity.Relay, "relay")))
	if err != nil {
		return nil, err
	}
	b.relay, err = control.WelcomeRelay(accepted, wire.Welcome{Version: wire.ControlVersion, Time: uint64(time.Now().Unix())}, b.log)
	if err != nil {
		return nil, err
	}
	go b.run(w.t.Context())
	return b, nil
}

func (b *broker) folder(name string) string { return filepath.Join(b.dir, name) }

func (b *broker) run(ctx context.Context) {
	if err := b.relay.Run(ctx, b.handle); err != nil {
		b.log.Error("the bench's relay is gone", "error", err)
	}
}

// handle takes what the relay says, and hands answers to who waits for them.
func (b *broker) handle(m wire.FromRelay) error {
	var id wire.SessionID
	switch m := m.(type) {
	case wire.SessionReady:
		id = m.ID
	case wire.SessionRefused:
		id = m.ID
	case wire.SessionOver:
		id = m.ID
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if answer, ok := b.waiting[id]; ok {
		delete(b.waiting, id)
		answer <- m
	}
	return nil
}

// ask sends a message about a session and waits for the answer.
func (b *broker) ask(id wire.SessionID, m wire.ToRelay) (wire.Message, error) {
	answer := make(chan wire.Message, 1)
	b.mu.Lock()
	b.waiting[id] = answer
	b.mu.Unlock()
	b.relay.Send(m)
	select {
	case m := <-answer:
		return m, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("the relay does not answer a message of type %d", m.Type())
	}
}

// open makes a session between the client's and the service's machine.
func (b *broker) open() (session, error) {
	s := session{id: wire.NewSessionID(), secrets: [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}}
	answer, err := b.ask(s.id, wire.CreateSession{
		ID: s.id, Lifetime: uint32(sessionLife.Seconds()), Transports: wire.TransportSplice | wire.TransportUDP,
		Legs: [2]wire.Leg{
			{Portal: entryPump, Secret: s.secrets[0], Source: b.w.natA.Addr()},
			{Portal: exitPump, Secret: s.secrets[1], Source: b.w.natB.Addr()},
		},
	})
	if err != nil {
		return session{}, err
	}
	ready, ok := answer.(wire.SessionReady)
	if !ok {
		return session{}, fmt.Errorf("the relay refuses a session: %+v", answer)
	}
	s.tcp = netip.AddrPortFrom(b.w.relay.Addr(), ready.TCP)
	s.udp = netip.AddrPortFrom(b.w.relay.Addr(), ready.UDP)
	return s, nil
}

// close ends a session. One that the relay has ended already stays so.
func (b *broker) close(s session) {
	b.relay.Send(wire.EndSession{ID: s.id, Reason: wire.ReasonShutdown})
}
