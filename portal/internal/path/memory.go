package path

import (
	"sync"
	"time"
)

const (
	// doubtTime is how long a way that has failed gets no head start. It is tried
	// all the same, so it comes back earlier where it works again.
	doubtTime = 24 * time.Hour
	// sharedTime is how long splice mode begins with a relay's shared port where the ports of
	// sessions were shut; then with those again. They may have been for a moment only, or a
	// segment was lost, and what connects late never wins by itself. In a network that shuts
	// them that costs a connection 50 ms.
	sharedTime = time.Hour
	// smallTime is how long segments stay small on a way that has swallowed
	// full ones; then full ones are tried again. As long as that is a suspicion
	// only, suspectTime.
	smallTime   = 24 * time.Hour
	suspectTime = 10 * time.Minute
	// maxRemembered bounds what is remembered: a server that announces sessions
	// with ever new names must not fill the memory.
	maxRemembered = 4096
)

// topic is what a fact is about. The ways to a relay depend on the network that
// this portal is in, so every topic is of one; what depends on the other portal's
// network just as much is of that portal, too. What was seen last at any relay is
// remembered of the relay "" as well, and is believed of relays of which
// nothing is known.
type topic struct {
	what                 subject
	network, relay, peer string
}

// subject is a kind of topic.
type subject string

const (
	spliceMode subject = "splice"   // of a relay: the mode to begin splice mode with
	packetBad  subject = "packet"   // of a pairing: packet mode has failed
	quicBad    subject = "quic"     // of a pairing: QUIC has failed
	quicFirst  subject = "first"    // of a pairing: QUIC was the quickest the last time
	smallMSS   subject = "segments" // of a relay: full segments get lost
	udpHold    subject = "hold"     // of a network: see hold
)

// fact is what is known; which of the fields count depends on the subject.
type fact struct {
	until     time.Time // zero: no end
	mode      Mode
	connected bool // packetBad, quicBad: it had, and failed nevertheless; smallMSS: with small segments
	hold      hold
}

// pairing is another portal at a relay.
type pairing struct{ relay, peer string }

// anyRelay stands for all relays.
const anyRelay = ""

func (p pairing) anywhere() pairing { return pairing{anyRelay, p.peer} }

// memory is what a portal has learned about the ways to its relays. It is safe
// for concurrent use.
type memory struct {
	network func() string // that this portal is in

	mu      sync.Mutex // guards the following
	facts   map[topic]fact
	changed chan struct{} // told after each change that is worth keeping
}

func newMemory(network func() string) *memory {
	return &memory{network: network, facts: make(map[topic]fact), changed: make(chan struct{}, 1)}
}

func (m *memory) ofRelay(what subject, relay string) topic {
	return topic{what: what, network: m.network(), relay: relay}
}

func (m *memory) ofPairing(what subject, p pairing) topic {
	return topic{what, m.network(), p.relay, p.peer}
}

// recall returns what is known and not over.
func (m *memory) recall(t topic) (fact, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recallLocked(t)
}

func (m *memory) recallLocked(t topic) (fact, bool) {
	f, ok := m.facts[t]
	if !ok || !f.until.IsZero() && !time.Now().Before(f.until) {
		return fact{}, false
	}
	return f, true
}

func (m *memory) knows(t topic) bool {
	_, ok := m.recall(t)
	return ok
}

func (m *memory) remember(t topic, f fact) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rememberLocked(t, f)
}

func (m *memory) rememberLocked(t topic, f fact) {
	old, known := m.facts[t]
	if known && old == f {
		return
	}
	if !known && len(m.facts) >= maxRemembered {
		for old := range m.facts {
			delete(m.facts, old)
			break
		}
	}
	m.facts[t] = f
	m.tellLocked()
}

// forget reports whether there was anything to forget.
func (m *memory) forget(t topic) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.facts[t]; !ok {
		return false
	}
	delete(m.facts, t)
	m.tellLocked()
	return true
}

func (m *memory) tellLocked() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// spliceFirst returns the mode to begin splice mode with.
func (m *memory) spliceFirst(relay string) Mode {
	f, ok := m.recall(m.ofRelay(spliceMode, relay))
	if !ok {
		f, _ = m.recall(m.ofRelay(spliceMode, anyRelay))
	}
	return f.mode
}

// rememberSplice takes the mode that has won for the one to begin with: SessionPort for good, another
// for sharedTime from when it won first.
func (m *memory) rememberSplice(relay string, mode Mode) {
	f := fact{mode: mode}
	if mode != SessionPort {
		f.until = time.Now().Add(sharedTime)
	}
	for _, t := range []topic{m.ofRelay(spliceMode, relay), m.ofRelay(spliceMode, anyRelay)} {
		if known, ok := m.recall(t); !ok || known.mode != mode {
			m.remember(t, f)
		}
	}
}

// holds reports whether something is known of a pairing.
func (m *memory) holds(what subject, p pairing) bool {
	return m.knows(m.ofPairing(what, p)) || m.knows(m.ofPairing(what, p.anywhere()))
}

// note remembers something of a pairing.
func (m *memory) note(what subject, p pairing, f fact) {
	m.remember(m.ofPairing(what, p), f)
	m.remember(m.ofPairing(what, p.anywhere()), f)
}

// unlearn forgets something of a pairing, and reports whether that was known.
func (m *memory) unlearn(what subject, p pairing) bool {
	here, anywhere := m.forget(m.ofPairing(what, p)), m.forget(m.ofPairing(what, p.anywhere()))
	return here || anywhere
}

// doubts reports whether a way gets no head start: packetBad or quicBad.
func (m *memory) doubts(way subject, p pairing) bool { return m.holds(way, p) }

// worked takes the doubt away: a carrier has come up, or the way has connected
// at least. That is no answer where it did so before and failed. It reports
// whether a doubt is gone.
func (m *memory) worked(way subject, p pairing, carried bool) bool {
	if f, ok := m.recall(m.ofPairing(way, p)); ok && f.connected && !carried {
		return false
	}
	return m.unlearn(way, p)
}

// failed begins the doubt, anew.
func (m *memory) failed(way subject, p pairing, connected bool) {
	m.note(way, p, fact{until: time.Now().Add(doubtTime), connected: connected})
}

// won remembers whether QUIC was the quickest.
func (m *memory) won(p pairing, quic bool) {
	if quic {
		m.note(quicFirst, p, fact{})
	} else {
		m.unlearn(quicFirst, p)
	}
}

// small reports whether segments on the way to a relay are to be small.
func (m *memory) small(relay string) bool {
	return m.knows(m.ofRelay(smallMSS, relay)) || m.knows(m.ofRelay(smallMSS, anyRelay))
}

// suspect has segments be small for a while, to any relay: it seems that full ones
// get lost, and what is narrow is mostly the line that all ways share. It reports
// whether that is new of this relay.
func (m *memory) suspect(relay string) bool {
	suspicion := fact{until: time.Now().Add(suspectTime)}
	m.remember(m.ofRelay(smallMSS, anyRelay), suspicion)
	t := m.ofRelay(smallMSS, relay)
	if m.knows(t) {
		return false
	}
	m.remember(t, suspicion)
	return true
}

// smallWorked takes the suspicion for the truth: a carrier has come up with small
// segments. It reports whether it was a suspicion.
func (m *memory) smallWorked(relay string) bool {
	t := m.ofRelay(smallMSS, relay)
	if f, ok := m.recall(t); !ok || f.connected {
		return false
	}
	m.remember(t, fact{until: time.Now().Add(smallTime), connected: true})
	return true
}

// interval is how long a UDP leg may be left silent.
func (m *memory) interval() time.Duration {
	f, _ := m.recall(topic{what: udpHold, network: m.network()})
	return f.hold.interval()
}

// learn takes what a silence has shown.
func (m *memory) learn(f finding, now time.Time) {
	if f == (finding{}) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := topic{what: udpHold, network: m.network()}
	known, _ := m.recallLocked(t)
	if f.held > 0 {
		known.hold = known.hold.survived(f.held, now)
	}
	if f.lost > 0 {
		known.hold = known.hold.lost(f.lost, now)
	}
	m.rememberLocked(t, known)
}
