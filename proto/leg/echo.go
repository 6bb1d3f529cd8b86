package leg

import (
	"encoding/binary"
	"time"

	"github.com/netport/netport/proto/wire"
)

// EchoLen is the length of an Echo in bytes.
const EchoLen = 24

// Echo is a packet of one portal to the other, over bound UDP legs, beside
// those of QUIC: it asks whether the way is open after a silence, both ways, and
// holds it open. It is answered at once, with the same token. It is bare:
// the relay could answer in the peer's place, and would gain nothing by it.
//
//	kind     uint8     1 asks, 2 answers; the first two bits of a packet are 0 in no
//	                   packet of QUIC
//	zeros    [7]byte   so it has no STUN cookie
//	token    [8]byte   random
//	interval uint32    milliseconds, 1 to 3,600,000: after how long a silence its
//	                   sender asks, as far as its own network is concerned
//	lost     uint32    milliseconds: the receiver's network did not hold the way
//	                   open for a silence as long as this; 0: nothing is known
type Echo struct {
	Answer   bool
	Token    uint64
	Interval time.Duration
	Lost     time.Duration
}

// MaxEchoInterval is the longest interval of an Echo.
const MaxEchoInterval = time.Hour

const (
	echoAsk    = 1
	echoAnswer = 2
)

// AppendTo appends the packet. Times are cut to milliseconds and to the range
// of their fields.
func (e Echo) AppendTo(b []byte) []byte {
	kind := byte(echoAsk)
	if e.Answer {
		kind = echoAnswer
	}
	b = append(b, kind, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, e.Token)
	b = binary.BigEndian.AppendUint32(b, uint32(max(min(e.Interval, MaxEchoInterval).Milliseconds(), 1)))
	return binary.BigEndian.AppendUint32(b, uint32(max(min(e.Lost, MaxEchoInterval).Milliseconds(), 0)))
}

// ParseEcho reads an Echo.
func ParseEcho(b []byte) (Echo, error) {
	r := wire.NewReader(b)
	var e Echo
	switch r.Uint8() {
	case echoAsk:
	case echoAnswer:
		e.Answer = true
	default:
		r.Reject()
	}
	if !zeros(r.Bytes(7)) {
		r.Reject()
	}
	e.Token = r.Uint64()
	e.Interval = time.Duration(r.Uint32()) * time.Millisecond
	e.Lost = time.Duration(r.Uint32()) * time.Millisecond
	if e.Interval < time.Millisecond || e.Interval > MaxEchoInterval || e.Lost > MaxEchoInterval {
		r.Reject()
	}
	if err := r.Done(); err != nil {
		return Echo{}, err
	}
	return e, nil
}
