package peers

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/wire"
)

// echo connects to a service that says what it hears, and ends when its client
// does.
func echo() net.Conn {
	a, b := net.Pipe()
	go func() {
		defer b.Close()
		io.Copy(b, b)
	}()
	return &echoed{a, b}
}

type echoed struct {
	net.Conn
	far net.Conn
}

func (e *echoed) CloseWrite() error { return e.far.Close() }

// tunnel asks for the tunnel to the other portal.
func (p *portal) tunnel(limit time.Duration) (*tunnel.Tunnel, error) {
	ctx, cancel := context.WithTimeout(p.w.t.Context(), limit)
	defer cancel()
	return p.pool.Tunnel(ctx, p.w.other(p).name, wire.GrantID{1})
}

// mustTunnel wants it within a limit.
func (p *portal) mustTunnel(limit time.Duration) *tunnel.Tunnel {
	p.w.t.Helper()
	tun, err := p.tunnel(limit)
	if err != nil {
		p.w.t.Fatalf("%s: %v", p.name, err)
	}
	return tun
}

// stream is a connection through a tunnel to a service that echoes.
type stream struct {
	t   *testing.T
	app net.Conn
	end chan error
}

func (p *portal) stream(tun *tunnel.Tunnel) *stream {
	app, other := net.Pipe()
	s := &stream{p.w.t, app, make(chan error, 1)}
	go func() {
		_, err := tun.OpenStream(p.w.t.Context(), wire.GrantID{1}, []byte("grant"), netip.AddrPort{}, other)
		s.end <- err
	}()
	return s
}

// talk returns a stream of ann's through the first tunnel, which carries.
func (w *world) talk() *stream {
	w.t.Helper()
	s := w.ann.stream(w.ann.mustTunnel(time.Second))
	s.echoes(time.Second)
	return s
}

// echoes wants what is said to come back within a limit.
func (s *stream) echoes(limit time.Duration) {
	s.t.Helper()
	const word = "hello"
	s.app.SetDeadline(time.Now().Add(limit))
	got := make([]byte, len(word))
	if _, err := io.WriteString(s.app, word); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.ReadFull(s.app, got); err != nil || string(got) != word {
		s.t.Fatalf("got %q, %v", got, err)
	}
}

// close ends the stream and wants it to have ended well.
func (s *stream) close() {
	s.t.Helper()
	s.app.Close()
	select {
	case err := <-s.end:
		if err != nil {
			s.t.Error(err)
		}
	case <-time.After(2 * linger):
		s.t.Fatal("the stream does not end")
	}
}

// only returns the status of a portal's one tunnel.
func (p *portal) only() Status {
	p.w.t.Helper()
	list := p.pool.Status()
	if len(list) != 1 || list[0].Tunnel == "" {
		p.w.t.Fatalf("%s has %+v, want one tunnel", p.name, list)
	}
	return list[0]
}

// tunnels returns the ids of a portal's tunnels that have a carrier, in order.
func (p *portal) tunnels() (ids []string) {
	for _, s := range p.pool.Status() {
		if s.Up {
			ids = append(ids, s.Tunnel)
		}
	}
	slices.Sort(ids)
	return ids
}

// wantNothingLeft wants the Pool to hold nothing of any peer.
func (p *portal) wantNothingLeft() {
	p.w.t.Helper()
	p.pool.mu.Lock()
	defer p.pool.mu.Unlock()
	for name, pr := range p.pool.peers {
		if len(pr.tunnels)+len(pr.sessions) > 0 || pr.search != nil {
			p.w.t.Errorf("%s still has %d tunnels and %d sessions with %s, search %v", p.name, len(pr.tunnels), len(pr.sessions), name, pr.search)
		}
	}
	if len(p.pool.sessions) > 0 {
		p.w.t.Errorf("%s still has %d sessions", p.name, len(p.pool.sessions))
	}
}

// wantUnavailable wants an error that says so, and why.
func wantUnavailable(t *testing.T, err error, reason wire.Reason) {
	t.Helper()
	var none *Unavailable
	if !errors.As(err, &none) || none.Reason != reason {
		t.Errorf("got %v, want no tunnel: %v", err, reason)
	}
}
