// Package traffic adds up what a portal's forwards carry, and how often peers could not
// be reached, for as long as the portal runs. Streams count their own bytes anyway: what
// is open is asked when somebody wants to know, and what is over was added when it ended.
package traffic

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
)

// maxEntries bounds the forwards, and the peers, that are told apart; what comes later
// is not counted. A policy that changes for years leaves old names behind.
const maxEntries = 16384

// Key names a forward in one of its roles.
type Key struct{ Forward, Peer, Role string }

// Ledger holds what was counted. The zero Ledger is ready to use, from any goroutine.
type Ledger struct {
	mu       sync.Mutex // guards the following
	forwards map[Key]*Forward
	peers    map[string]*Stalls
}

// Forward is the tunnel.Account of one forward.
type Forward struct {
	moved atomic.Uint64

	mu     sync.Mutex // guards the following; no meter is asked under it
	opened uint64
	open   map[tunnel.Meter]struct{}
	past   tunnel.Totals // of what is over
}

// Stalls is what is known of the times when nothing got through to a peer.
type Stalls struct {
	Count          uint64
	Total, Longest time.Duration
}

// Account returns the account of a forward, or nil if there are too many.
func (l *Ledger) Account(k Key) tunnel.Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.forwards[k]
	if f == nil {
		if len(l.forwards) >= maxEntries {
			return nil
		}
		if l.forwards == nil {
			l.forwards = make(map[Key]*Forward)
		}
		f = &Forward{open: make(map[tunnel.Meter]struct{})}
		l.forwards[k] = f
	}
	return f
}

// Stalled adds one time.
func (l *Ledger) Stalled(peer string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.peers[peer]
	if s == nil {
		if len(l.peers) >= maxEntries {
			return
		}
		if l.peers == nil {
			l.peers = make(map[string]*Stalls)
		}
		s = &Stalls{}
		l.peers[peer] = s
	}
	s.Count++
	s.Total += d
	s.Longest = max(s.Longest, d)
}

// Enter implements tunnel.Account.
func (f *Forward) Enter(m tunnel.Meter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	f.open[m] = struct{}{}
}

// Leave implements tunnel.Account.
func (f *Forward) Leave(m tunnel.Meter, t tunnel.Totals) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, m)
	f.past = plus(f.past, t)
}

// Moved implements tunnel.Account.
func (f *Forward) Moved() { f.moved.Add(1) }

// Sum is what a forward has carried.
type Sum struct {
	tunnel.Totals        // bytes
	Opened        uint64 // streams and flows
	Open          int    // of these
	Moved         uint64 // how often one went on over another carrier
}

func (f *Forward) sum() Sum {
	f.mu.Lock()
	s := Sum{Totals: f.past, Opened: f.opened, Open: len(f.open), Moved: f.moved.Load()}
	open := slices.Collect(maps.Keys(f.open))
	f.mu.Unlock()
	// What ends meanwhile still says what it has carried.
	for _, m := range open {
		s.Totals = plus(s.Totals, m.Carried())
	}
	return s
}

func plus(a, b tunnel.Totals) tunnel.Totals {
	return tunnel.Totals{Sent: a.Sent + b.Sent, Received: a.Received + b.Received}
}

// Forwards returns what every forward has carried.
func (l *Ledger) Forwards() map[Key]Sum {
	l.mu.Lock()
	all := maps.Clone(l.forwards)
	l.mu.Unlock()
	sums := make(map[Key]Sum, len(all))
	for k, f := range all {
		sums[k] = f.sum()
	}
	return sums
}

// Peers returns the stalls of every peer that had one.
func (l *Ledger) Peers() map[string]Stalls {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]Stalls, len(l.peers))
	for peer, s := range l.peers {
		all[peer] = *s
	}
	return all
}
