package path

import (
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// doubtTime is how long packet mode that has failed gets no head start. It
	// is tried all the same, so it comes back earlier where it works again.
	doubtTime = time.Hour
	// maxRemembered bounds what is remembered of each kind: a server that
	// announces sessions with ever new names must not fill the memory.
	maxRemembered = 4096
)

// memory is what a portal has learned about the ways to its relays. Splice
// mode's modes depend on the network here, so they are remembered by relay;
// packet mode depends on the other portal's network just as much, so it is
// remembered by both.
type memory struct {
	mu      sync.Mutex // guards the following
	splice  map[string]Mode
	doubted map[pairing]doubt
}

// doubt is why packet mode gets no head start.
type doubt struct {
	until     time.Time
	connected bool // it had, and failed nevertheless
}

// pairing is another portal at a relay.
type pairing struct{ relay, peer string }

func newMemory() *memory {
	return &memory{splice: make(map[string]Mode), doubted: make(map[pairing]doubt)}
}

func pairingOf(s wire.Session) pairing { return pairing{s.Relay.Name, s.Peer} }

// spliceFirst returns the mode to begin splice mode with.
func (m *memory) spliceFirst(relay string) Mode {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.splice[relay]
}

func (m *memory) rememberSplice(relay string, mode Mode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.splice, relay)
	m.splice[relay] = mode
}

// doubts reports whether packet mode gets no head start.
func (m *memory) doubts(p pairing) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.doubted[p].until)
}

// packetWorked takes the doubt away: a carrier has come up, or packet mode has
// connected at least. That is no answer where it did so before and failed. It
// reports whether a doubt is gone.
func (m *memory) packetWorked(p pairing, carried bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.doubted[p]
	if !ok || d.connected && !carried {
		return false
	}
	delete(m.doubted, p)
	return true
}

// packetFailed begins the doubt, anew.
func (m *memory) packetFailed(p pairing, connected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.doubted, p)
	m.doubted[p] = doubt{time.Now().Add(doubtTime), connected}
}

// makeRoom forgets something if there is no room for one more.
func makeRoom[K comparable, V any](m map[K]V, key K) {
	if _, ok := m[key]; ok || len(m) < maxRemembered {
		return
	}
	for old := range m {
		delete(m, old)
		return
	}
}
