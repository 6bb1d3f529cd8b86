// Package gate bounds connections that have not proven yet who they are, so
// that strangers cannot keep the real ones out.
//
// A Gate holds at most Limit such connections, and takes a quarter of the
// process's descriptors for them at most. When it is full, the oldest is
// closed to make room: a real peer proves itself in well under a second, while
// a stranger who holds connections open is by far the older. One prefix (an
// IPv4 /24 or an IPv6 /56) may hold at most PerPrefix of them: beyond that its
// own oldest is closed. The table of prefixes has no more entries than there
// are connections, so it is bounded too. Deadlines are the caller's.
//
// A Share bounds those that cannot be closed once they have begun.
package gate

import (
	"container/list"
	"net"
	"net/netip"
	"sync"

	"github.com/netport/netport/proto/reserve"
)

const (
	// Limit is how many unproven connections a Gate holds in all.
	Limit = 1000
	// PerPrefix is how many of them may come from one prefix.
	PerPrefix = 200
)

// Gate counts unproven connections. The zero Gate is ready to use.
type Gate struct {
	mu sync.Mutex // guards the following
	// waiting holds *entry, oldest first; byPrefix the same per prefix.
	waiting  list.List
	byPrefix map[netip.Prefix]*list.List
}

type entry struct {
	conn   net.Conn
	prefix netip.Prefix
	inAll  *list.Element
	inOwn  *list.Element
}

// Enter admits conn, closing an older one if there is no room. The function it
// returns takes conn out again, when it has proven itself or is closed; it may
// be called more than once.
func (g *Gate) Enter(conn net.Conn) (leave func()) {
	e := &entry{conn: conn, prefix: prefixOf(conn.RemoteAddr())}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byPrefix == nil {
		g.byPrefix = make(map[netip.Prefix]*list.List)
	}
	own := g.byPrefix[e.prefix]
	switch {
	case own != nil && own.Len() >= PerPrefix:
		g.evictLocked(own.Front().Value.(*entry))
	case g.waiting.Len() >= room():
		g.evictLocked(g.waiting.Front().Value.(*entry))
	}
	own = g.byPrefix[e.prefix] // eviction may have emptied and dropped it
	if own == nil {
		own = list.New()
		g.byPrefix[e.prefix] = own
	}
	e.inAll, e.inOwn = g.waiting.PushBack(e), own.PushBack(e)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.removeLocked(e)
	}
}

// room is how many connections there may be now.
func room() int { return int(min(Limit, reserve.Limit()/4)) }

// Waiting returns how many unproven connections there are.
func (g *Gate) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting.Len()
}

func (g *Gate) evictLocked(e *entry) {
	g.removeLocked(e)
	e.conn.Close()
}

func (g *Gate) removeLocked(e *entry) {
	if e.inAll == nil {
		return
	}
	g.waiting.Remove(e.inAll)
	own := g.byPrefix[e.prefix]
	own.Remove(e.inOwn)
	if own.Len() == 0 {
		delete(g.byPrefix, e.prefix)
	}
	e.inAll, e.inOwn = nil, nil
}

// prefixOf returns the network a peer is counted under: a /24 or a /56.
func prefixOf(addr net.Addr) netip.Prefix {
	t, ok := addr.(interface{ AddrPort() netip.AddrPort }) // TCP's or UDP's
	if !ok {
		return netip.Prefix{}
	}
	a := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 56
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}
