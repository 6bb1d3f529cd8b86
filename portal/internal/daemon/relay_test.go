package daemon

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// relay joins proven legs, in splice mode. It also takes legs of tickets.
type relay struct {
	w        *world
	name     string
	listener net.Listener
	key      wire.Secret // of tickets

	mu       sync.Mutex // guards the following
	over     bool
	mute     chan struct{} // nil: what comes is passed on; else not before it is closed
	sessions map[wire.SessionID][2]wire.Secret
	waiting  map[leg.ID]net.Conn
	open     map[wire.SessionID][]net.Conn
}

// addRelay starts one more relay.
func (w *world) addRelay() *relay {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	r := &relay{
		w: w, listener: l, key: wire.NewSecret(), sessions: make(map[wire.SessionID][2]wire.Secret),
		waiting: make(map[leg.ID]net.Conn), open: make(map[wire.SessionID][]net.Conn),
	}
	w.mu.Lock()
	w.relays = append(w.relays, r)
	r.name = fmt.Sprintf("relay-%d", len(w.relays))
	w.mu.Unlock()
	w.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.tasks.Go(func() { r.serve(conn.(*net.TCPConn)) })
		}
	})
	return r
}

// access is where its sessions are.
func (r *relay) access() wire.RelayAccess {
	at := r.listener.Addr().(*net.TCPAddr).AddrPort()
	return wire.RelayAccess{Name: r.name, Addresses: []netip.Addr{at.Addr()}, TCP: at.Port()}
}

// expect takes a session and says where its legs are to be proven.
func (r *relay) expect(id wire.SessionID, secrets [2]wire.Secret) wire.RelayAccess {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[id] = secrets
	return r.access()
}

// end forgets a session and closes its connections.
func (r *relay) end(id wire.SessionID) {
	r.mu.Lock()
	delete(r.sessions, id)
	r.mu.Unlock()
	r.cut(id)
}

// cut closes the connections of a session.
func (r *relay) cut(id wire.SessionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open[id] {
		c.Close()
	}
	delete(r.open, id)
}

func (r *relay) serve(conn *net.TCPConn) {
	b := make([]byte, leg.PrefaceLen)
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		conn.Close()
		return
	}
	var zero wire.SessionID
	r.open[zero] = append(r.open[zero], conn) // until it has said which
	r.mu.Unlock()
	if _, err := io.ReadFull(conn, b); err != nil {
		conn.Close()
		return
	}
	p, err := leg.ParsePreface(b)
	if err != nil {
		r.w.Errorf("relay: a preface: %v", err)
		conn.Close()
		return
	}
	r.mu.Lock()
	secrets, known := r.sessions[p.ID.Session]
	if _, standing := ticket.Ends(p.ID.Session); standing && !known {
		known = true
		for i := range secrets {
			secrets[i] = ticket.Secret(r.key, p.ID.Session, uint8(i))
		}
	}
	if !known { // it has ended meanwhile
		r.mu.Unlock()
		conn.Close()
		return
	}
	if !p.ProvenBy(secrets[p.ID.Leg]) {
		r.mu.Unlock()
		r.w.Errorf("relay: leg %v is not proven", p.ID)
		conn.Close()
		return
	}
	r.open[p.ID.Session] = append(r.open[p.ID.Session], conn)
	other := r.waiting[p.ID.Other()]
	if other == nil {
		if before := r.waiting[p.ID]; before != nil {
			before.Close()
		}
		r.waiting[p.ID] = conn
		r.mu.Unlock()
		return
	}
	delete(r.waiting, p.ID.Other())
	r.mu.Unlock()
	r.w.tasks.Go(func() { r.pass(other.(*net.TCPConn), conn) })
	r.pass(conn, other.(*net.TCPConn))
}

func (r *relay) pass(to, from *net.TCPConn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		mute := r.mute
		r.mu.Unlock()
		if mute != nil {
			<-mute
		}
		if _, failed := to.Write(b[:n]); failed != nil {
			err = failed
		}
		switch {
		case err == io.EOF:
			to.CloseWrite()
			return
		case err != nil:
			to.SetLinger(0)
			to.Close()
			from.Close()
			return
		}
	}
}

// stall is a relay on which nothing moves any more, until speak is called.
func (r *relay) stall() (speak func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	mute := make(chan struct{})
	r.mute = mute
	return sync.OnceFunc(func() {
		r.mu.Lock()
		r.mute = nil
		r.mu.Unlock()
		close(mute)
	})
}

// close is a relay that dies.
func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for _, list := range r.open {
		for _, c := range list {
			c.Close()
		}
	}
}

func (r *relay) closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
}
