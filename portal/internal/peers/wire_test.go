package peers

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/path/direct"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// seeker is one portal's Direct: the way is open while the world's wire lies, and the
// other portal has told its candidates.
type seeker struct {
	theLeg
	of     *portal
	tunnel direct.Tunnel

	mu     sync.Mutex // guards the following
	told   []wire.Candidate
	here   bool
	open   int // connections
	made   int // so far
	renew  bool
	closed bool
}

// ownAddr is what each portal tells the other.
var ownAddr = netip.MustParseAddrPort("192.0.2.1:4000")

type seekers struct{ of *portal }

// Open implements Directs. The wire joins those legs whose tunnels have the same key.
func (s seekers) Open(t direct.Tunnel) Direct {
	k := &seeker{of: s.of, tunnel: t, theLeg: theLeg{of: s.of, relay: s.of.w.wire}}
	copy(k.session.ID[:], t.Keys.Key[:])
	if !t.Client {
		k.session.Leg = 1
	}
	s.of.w.mu.Lock()
	s.of.seekers = append(s.of.seekers, k)
	s.of.w.mu.Unlock()
	go t.Offer([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: ownAddr}})
	return k
}

func (k *seeker) Peer(list []wire.Candidate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = list
}

func (k *seeker) Here() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.here = true
}

// Replace has the other's side be ready, too: a connection of this one would come there.
func (k *seeker) Replace() {
	k.of.w.mu.Lock()
	defer k.of.w.mu.Unlock()
	for _, p := range []*portal{k.of.w.ann, k.of.w.plant} {
		for _, o := range p.seekers {
			o.mu.Lock()
			o.renew = o.renew || o.session.ID == k.session.ID
			o.mu.Unlock()
		}
	}
}

func (k *seeker) Ready(ctx context.Context) error {
	for {
		k.mu.Lock()
		ready := len(k.told) == 1 && (k.open == 0 || k.renew)
		k.mu.Unlock()
		k.relay.mu.Lock()
		ready = ready && !k.relay.gone && !k.relay.mute
		k.relay.mu.Unlock()
		if ready {
			return nil
		}
		if err := pass(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (k *seeker) State() (s direct.State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.told {
		s.Tries = append(s.Tries, direct.Try{Transport: c.Transport, Addr: c.Addr, Origin: c.Origin})
	}
	return s
}

func (k *seeker) Ways(connection uint16) ([]path.Way, []time.Duration) {
	return []path.Way{&wireWay{way{&k.theLeg, connection}, k}}, []time.Duration{0}
}
func (k *seeker) Again() ([]path.Way, []time.Duration) { return k.Ways(leg.Meeting) }
func (k *seeker) Of(uint16, wire.CarrierKind) ([]path.Way, []time.Duration) {
	return nil, nil
}
func (k *seeker) Relay() string                  { return "" }
func (k *seeker) Mode() (string, netip.AddrPort) { return wireName, netip.AddrPort{} }

func (k *seeker) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
}

const wireName = "direct wire"

type wireWay struct {
	way
	seeker *seeker
}

func (w *wireWay) String() string { return wireName }
func (w *wireWay) Direct() bool   { return true }
func (w *wireWay) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := w.way.Dial(ctx)
	if err != nil {
		return nil, err
	}
	w.seeker.count(1)
	s := conn.(*socket)
	left := s.closed
	s.closed = sync.OnceFunc(func() {
		w.seeker.count(-1)
		left()
	})
	return s, nil
}

func (k *seeker) count(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open += n
	if n > 0 {
		k.made += n
		k.renew = false
	}
}
