// Package leg is how a portal proves a leg of a session to a relay.
//
// The server gives each portal the session's id, its own leg number (0 or 1)
// and its own leg secret; it gives the relay both secrets. The secret never
// crosses the wire here: it keys a MAC. One leg may hold several connections,
// told apart by their number; connection n of leg 0 is joined with connection
// n of leg 1, and with nothing else.
//
// Numbers are big endian. MACs are HMAC-SHA256 (RFC 2104, RFC 6234).
//
// # TCP: the preface
//
// The portal dials the relay and sends exactly 64 bytes. The relay answers
// nothing, neither to a good preface nor to a bad one: what the portal reads
// next was sent by the other portal. Whatever follows the preface is payload
// and may be sent at once.
//
//	 0       5                      21   22          24            40                64
//	+-------+----------------------+----+-----------+-------------+-----------------+
//	| magic |       session        |leg |connection |    nonce    |       MAC       |
//	+-------+----------------------+----+-----------+-------------+-----------------+
//
//	magic      [5]byte   "NPLG" and the version, 1
//	session    [16]byte
//	leg        uint8     0 or 1
//	connection uint16
//	nonce      [16]byte  random, never used twice
//	MAC        [24]byte  over the 40 bytes before it, keyed by the leg secret, cut
//
// The first byte is no TLS record type, so that a relay can take TLS with a
// preface inside, and a bare preface, on the same port. A relay takes a nonce
// once. Until a connection is joined, its portal may prove it again with a new
// nonce (its first dial may have died unnoticed): the newest stands. Once
// joined, a connection number is used up.
//
// # UDP: the bind
//
// The portal binds a leg's connection to the address and port that it sends
// from, as the relay sees it, with STUN Binding (RFC 8489). The shape is that of
// RFC 8489 section 9.2, with the integrity in the first request too, so that
// strangers get nothing:
//
//	portal                                   relay
//	  | Binding request, no NONCE             |
//	  |-------------------------------------->| MAC good, counter new:
//	  |   error 401 with NONCE                | keeps no state
//	  |<--------------------------------------|
//	  | Binding request with that NONCE       |
//	  |-------------------------------------->| NONCE is of this leg, this source,
//	  |   success with XOR-MAPPED-ADDRESS     | this half minute: bound
//	  |<--------------------------------------|
//
// A request is exactly 192 bytes and no answer is longer than 108, so a relay
// cannot be used to amplify. Its attributes, in this order:
//
//	USERNAME                  0x0006  40  session in 32 lower-case hexadecimal digits, ":",
//	                                      leg, ":", connection in 5 decimal digits
//	COUNTER                   0xfe4e   8  uint64, from 1; see below
//	NONCE                     0x0015  40  second request only: as it came
//	PADDING                   0x0026      zeros, to 192 bytes in all
//	MESSAGE-INTEGRITY-SHA256  0x001c  32  keyed by the leg secret
//
// The challenge has ERROR-CODE 401 with an empty reason, NONCE (40 bytes of text)
// and MESSAGE-INTEGRITY-SHA256; the success has XOR-MAPPED-ADDRESS and
// MESSAGE-INTEGRITY-SHA256; both keyed by the leg secret and with the request's
// transaction id. A portal ignores every other answer.
//
// The counter belongs to the leg's connection. Every new bind has a higher one
// than all before; a repeated packet and the second request of a bind keep
// theirs. A relay is silent to a counter that is not above that of the last
// bind, with one exception: the very request that made the bind, from the
// source that it bound, is answered again, because the answer may have been lost.
// So a replayed bind moves nothing. A bind with a higher counter moves the leg
// to its new source (roaming, NAT rebinding).
//
// Everything else is met with silence: other lengths, other attributes, an unknown
// session or leg, a wrong MAC, an old counter, a NONCE of another leg, source
// or time, and requests for more challenges than a relay gives in a second.
// The portal repeats a request until it is answered, and starts
// again with a higher counter when its second request stays unanswered.
//
// Data is never STUN-shaped: a packet with the STUN cookie in its bytes 4 to 7
// is for the relay and is not sent on.
package leg
