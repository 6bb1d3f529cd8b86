package leg

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// NonceLifetime is how long after its challenge a NONCE is taken.
	NonceLifetime = 30 * time.Second

	// MaxChallenges is how many challenges a Gate gives in one second. They go to
	// addresses that are not proven: whoever caught a request can have one
	// sent there for each time he repeats it.
	MaxChallenges = 10_000

	// keyPeriod is how long one key makes NONCEs; the one before it is still
	// good to check with, so that a change of keys refuses nobody.
	keyPeriod = 2 * time.Minute
)

// Verdict is what a Gate says about a bind request.
type Verdict uint8

// The verdicts. The first four are met with silence.
const (
	WrongMAC   Verdict = iota + 1 // the sender does not hold the leg secret
	OldCounter                    // a replay, or overtaken by a later bind
	WrongNonce                    // of another leg, source or time
	TooMany                       // challenges in this second
	Challenge                     // proven, but not yet from this source: answer, keep nothing
	Bind                          // bind the leg to the source, then answer
	Repeat                        // bound already by this very request: answer again
)

// Binding is the last bind of a leg's connection; zero before the first.
type Binding struct {
	Counter uint64
	Source  netip.AddrPort
}

// Gate judges the bind requests that come to a relay. It remembers nothing
// about a request: what must last, the Binding, is its caller's. It is safe for
// concurrent use.
type Gate struct {
	mu         sync.Mutex // guards the following
	rotated    time.Time
	key, old   [sha256.Size]byte
	second     int64 // of Unix time
	challenges int   // given in it
}

// NewGate returns a Gate with fresh keys. A NONCE of another Gate, or of one
// before a restart, is a wrong one.
func NewGate() *Gate {
	g := &Gate{}
	rand.Read(g.key[:])
	rand.Read(g.old[:])
	return g
}

// Judge decides about a parsed request that came from source, for a leg with
// that secret and that last Binding, and returns the answer to send, which is
// nil where the verdict is silence.
func (g *Gate) Judge(now time.Time, q Request, source netip.AddrPort, secret wire.Secret, last Binding) (Verdict, []byte) {
	if !q.ProvenBy(secret) {
		return WrongMAC, nil
	}
	repeated := q.nonce != nil && q.Counter == last.Counter && source == last.Source
	if q.Counter <= last.Counter && !repeated {
		return OldCounter, nil
	}
	key, old := g.keys(now)
	if q.nonce == nil {
		if !g.admit(now) {
			return TooMany, nil
		}
		nonce := appendNonce(nil, key, q.ID, source, now)
		return Challenge, appendChallenge(nil, q.transaction, nonce, secret)
	}
	if !nonceGood(q, source, now, key) && !nonceGood(q, source, now, old) {
		return WrongNonce, nil
	}
	success := appendSuccess(nil, q.transaction, source, secret)
	if repeated {
		return Repeat, success
	}
	return Bind, success
}

func (g *Gate) keys(now time.Time) (key, old [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.rotated) >= keyPeriod {
		g.rotated, g.old = now, g.key
		rand.Read(g.key[:])
	}
	return g.key, g.old
}

// admit reports whether one more challenge may be given.
func (g *Gate) admit(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if second := now.Unix(); second != g.second {
		g.second, g.challenges = second, 0
	}
	g.challenges++
	return g.challenges <= MaxChallenges
}

// A NONCE is the hexadecimal form of 4 bytes of time and 16 bytes of MAC.
func appendNonce(b []byte, key [sha256.Size]byte, id ID, source netip.AddrPort, at time.Time) []byte {
	seconds := binary.BigEndian.AppendUint32(nil, uint32(at.Unix()))
	h := hmac.New(sha256.New, key[:])
	h.Write(seconds)
	h.Write(id.username())
	addr := source.Addr().As16()
	h.Write(addr[:])
	h.Write(binary.BigEndian.AppendUint16(nil, source.Port()))
	return hex.AppendEncode(b, h.Sum(seconds)[:nonceLen/2])
}

func nonceGood(q Request, source netip.AddrPort, now time.Time, key [sha256.Size]byte) bool {
	var made [nonceLen / 2]byte
	if _, err := hex.Decode(made[:], q.nonce); err != nil {
		return false
	}
	at := time.Unix(int64(binary.BigEndian.Uint32(made[:])), 0)
	if age := now.Sub(at); age < 0 || age > NonceLifetime {
		return false
	}
	return hmac.Equal(appendNonce(nil, key, q.ID, source, at), q.nonce)
}
