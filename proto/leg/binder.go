package leg

import (
	"crypto/rand"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	firstRepeat = 200 * time.Millisecond // then doubled
	lastRepeat  = 2 * time.Second
	// maxRepeats of a second request without an answer start the bind again:
	// the NONCE may be too old, or the NAT gave this portal a new address.
	maxRepeats = 3
)

// Binder is a portal's side of a bind: a state machine without clock or socket.
//
//	asking --challenge--> answering --success--> bound
//	   ^                      |                    |
//	   +---- no answer -------+                    |
//	   +------------------- Start -----------------+
//
// Packet says what to send and when to ask again; Handle takes what came from
// the relay. A Binder never gives up: how long to try is its owner's decision.
// It is not safe for concurrent use.
type Binder struct {
	id     ID
	secret wire.Secret

	request []byte // to be sent until it is answered; nil when bound
	current Request
	due     time.Time
	repeats int
	mapped  netip.AddrPort
}

// NewBinder returns a Binder whose first bind is due at once. Its counters
// start above counter, which must not be below any that this leg's connection
// has used before.
func NewBinder(id ID, secret wire.Secret, counter uint64) *Binder {
	b := &Binder{id: id, secret: secret, current: Request{Counter: counter}}
	b.Start()
	return b
}

// Start begins a new bind with the next counter: after the portal's network
// changed, or to keep a NAT's mapping alive. What is bound stays bound
// meanwhile.
func (b *Binder) Start() {
	b.use(Request{ID: b.id, Counter: b.current.Counter + 1})
}

// use makes q the request to send, from now on.
func (b *Binder) use(q Request) {
	rand.Read(q.transaction[:])
	b.current = q
	b.request = appendRequest(nil, q, b.secret)
	b.due = time.Time{}
	b.repeats = 0
}

// Packet returns the request to send now, or nil, and when to call again.
// When bound there is nothing to call for: it returns nil and the zero Time.
func (b *Binder) Packet(now time.Time) (packet []byte, again time.Time) {
	if b.request == nil {
		return nil, time.Time{}
	}
	if now.Before(b.due) {
		return nil, b.due
	}
	if b.repeats > maxRepeats && b.current.nonce != nil {
		b.Start()
	}
	b.due = now.Add(min(firstRepeat<<min(b.repeats, 8), lastRepeat))
	b.repeats++
	return b.request, b.due
}

// Handle takes a packet that came from the relay and reports whether it was
// an answer to the request under way. Others are to be treated as if they had
// not come.
func (b *Binder) Handle(packet []byte) bool {
	if b.request == nil {
		return false
	}
	v, err := parseAnswer(packet, b.secret)
	if err != nil || v.transaction != b.current.transaction {
		return false
	}
	if v.nonce != nil {
		q := b.current
		q.nonce = append([]byte(nil), v.nonce...)
		b.use(q)
		return true
	}
	b.mapped, b.request = v.mapped, nil
	return true
}

// Mapped returns the address and port that the relay last saw this leg at, and
// whether the leg is bound with no bind under way.
func (b *Binder) Mapped() (netip.AddrPort, bool) { return b.mapped, b.request == nil }
