// Package drop names why the relay did not carry a packet or a connection, and
// counts it. A bad packet is no error: it is met with silence and counted
// here. Status, logs and tests use the same names, and so do the counters of
// the kernel planes where they drop for the same reason.
package drop

import "sync/atomic"

// Reason is why something was dropped.
type Reason uint8

// The reasons. None is the zero value: nothing was dropped.
const (
	None             Reason = iota
	Malformed               // no preface, no bind request and no segment of a connection
	UnknownSession          // no such session, or not at this port
	WrongMAC                // the sender does not hold the leg secret
	Replayed                // a preface's nonce or a bind's counter was used before
	WrongNonce              // a bind's NONCE is of another leg, source or time
	Joined                  // the connection was joined before: its number is used up
	Expired                 // the session's lifetime was over
	ForbiddenSource         // an address that is never served
	SourceTaken             // the source is bound already: by the other leg, or by another session
	UnknownSource           // a packet of no leg that is bound or admitted there
	NotJoined               // a packet of a bound leg whose other leg is not bound, beyond those held
	Limit                   // a limit of the session's connections, or of challenges a second
	HandshakeTimeout        // the leg was not proven in time
	Evicted                 // unproven, and pushed out by newer connections
	WaitTimeout             // the other leg did not come
	SendFailed              // the system did not take the packet
	TLS                     // the TLS handshake of a shared port failed
	Splice                  // the two sockets could not be joined
	RateLimit               // beyond the rates that a session may carry
	Checksum                // a packet's transport checksum is wrong
	WrongNumbers            // sequence numbers that no handshake of this source has
	Quarantined             // a 4-tuple that was another session's a moment ago
	TTL                     // a packet whose TTL or hop limit is used up
	Stopping                // a ticket's first leg at a relay that drains
	count
)

var names = [count]string{
	None:             "none",
	Malformed:        "malformed",
	UnknownSession:   "unknown_session",
	WrongMAC:         "wrong_mac",
	Replayed:         "replayed",
	WrongNonce:       "wrong_nonce",
	Joined:           "joined",
	Expired:          "expired",
	ForbiddenSource:  "forbidden_source",
	SourceTaken:      "source_taken",
	UnknownSource:    "unknown_source",
	NotJoined:        "not_joined",
	Limit:            "limit",
	HandshakeTimeout: "handshake_timeout",
	Evicted:          "evicted",
	WaitTimeout:      "wait_timeout",
	SendFailed:       "send_failed",
	TLS:              "tls",
	Splice:           "splice",
	RateLimit:        "rate_limit",
	Checksum:         "checksum",
	WrongNumbers:     "wrong_numbers",
	Quarantined:      "quarantined",
	TTL:              "ttl",
	Stopping:         "stopping",
}

// String returns the name that status and logs use.
func (r Reason) String() string { return names[r] }

// Counters counts drops by reason. The zero Counters is ready to use, from
// any goroutine.
type Counters struct{ n [count]atomic.Uint64 }

// Add counts one drop. None is not counted.
func (c *Counters) Add(r Reason) { c.AddN(r, 1) }

// AddN counts n drops of one reason.
func (c *Counters) AddN(r Reason, n int) {
	if r != None {
		c.n[r].Add(uint64(n))
	}
}

// Count returns how many drops of one reason there were.
func (c *Counters) Count(r Reason) uint64 { return c.n[r].Load() }

// All returns the counters that are not zero, by name.
func (c *Counters) All() map[string]uint64 {
	all := make(map[string]uint64)
	for r := range c.n {
		if v := c.n[r].Load(); v > 0 {
			all[names[r]] = v
		}
	}
	return all
}
