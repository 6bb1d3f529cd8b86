// Package leg is how a portal proves a leg of a session to a relay, and what the relay
// then joins.
//
// The server gives each portal the session's id, its own leg number (0 or 1)
// and its own leg secret ([wire.Session]); it gives the relay both secrets. The secret never
// crosses the wire here: it keys a MAC. One leg may hold several connections,
// told apart by their number, at most 1,024; connection n of leg 0 is joined with connection
// n of leg 1, and with nothing else. There are three kinds, and both legs of a carrier
// are of the same: a TCP leg shows what it is by a preface (splice mode) or by where it
// comes from (packet mode); a UDP leg is bound. A portal dials packet mode first and splice
// mode soon after, and takes what connects on both sides.
//
// # TCP: splice mode, the preface
//
// The portal dials the relay's session port, its shared port, or its shared port with TLS
// ([wire.TransportSplice], [wire.TransportTLS]) and sends exactly 64 bytes. The relay answers
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
// When both legs of one number are proven the relay joins them: what one sends after its
// preface, the other receives, and a half-close with it. A leg that breaks resets the other: only
// a clean end is passed on as one. A relay closes, without a word, what is not proven within 10
// seconds; a proven leg waits 30 seconds for the other.
//
// The first byte is no TLS record type (0x16), so that a relay can take TLS with a
// preface inside, and a bare preface, on the same port. A relay takes a nonce
// once. Until a connection is joined, its portal may prove it again with a new
// nonce (its first dial may have died unnoticed): the newest stands. Once
// joined, a connection number is used up. A relay that was restarted takes no
// number up to the highest that was proven before: their connections are gone, and
// it does not know their nonces any more. Portals count their connections upwards.
//
// # TCP: meetings
//
// Two portals that cannot agree on a number any more, since they have lost all
// that joined them, use number 65,535 (Meeting), which is never used up. The
// first 8 bytes of the nonce are then a counter:
//
//	counter    uint64    above that of every such preface of this leg before
//	random     [8]byte
//
// A relay takes only a counter above the last it took of the leg, and keeps it
// over restarts where it keeps sessions. The newest leg 0 that waits is joined
// with the newest leg 1 that waits; an older one of the same leg is closed. So is
// a pair joined more than 2 seconds before, when a newer one comes of a leg that
// has sent nothing in it: that one was dead, and the other portal learns of it. What
// else is joined of the leg the relay asks, below the payload (TCP keepalive, 3 times in
// 3 seconds), whether it lives: a portal that has moved has left it behind. A
// portal dials one at a time, and once more after a while if nothing comes of it.
//
// # Tickets
//
// The session of a ticket is known by its id (package ticket), and the secrets of
// its legs follow from a key that the server and the relay share.
// A relay makes such a session when a leg of it is proven, by a preface with
// number Meeting or by the second request of a bind, at a shared port and before
// its end; nothing that is not proven has it keep anything. The session lasts as any
// other, and never beyond the ticket's end. It has no ports of its own and takes
// TCP legs of number Meeting alone. They wait for each other for 5 minutes.
//
// # TCP: packet mode
//
// A session that may use packet mode ([wire.TransportPacket]) has a block of [PacketPorts] ports
// for each leg. Its portal is told the first of them ([wire.RelayAccess]); connection n uses port
// first + n mod PacketPorts. The portal connects there and sends nothing to prove its leg:
// the first byte it sends is payload, and the first it reads was sent by the
// other portal. No two legs have the same block for the same source address, so
// address and block say which leg it is. Two connections at once need two ports;
// a port serves again when the connection there has ended.
//
// The relay takes a SYN from a leg's admitted addresses alone: the one that the
// server saw the portal come from, and those from which the portal proved a leg
// of the session by a preface or a bind; at most 4. All else is met with silence.
// It answers for the other portal, with what that portal's own SYN said:
//
//	portal of leg 0                  relay                  portal of leg 1
//	  | SYN, sequence number x         |                                 |
//	  |------------------------------->| kept                            |
//	  |                                |    SYN, sequence number y       |
//	  |                                |<--------------------------------|
//	  |   SYN-ACK, number y, acks x+1  |                                 |
//	  |<-------------------------------|                                 |
//	  | ACK of y+1                     |                                 |
//	  |------------------------------->| leg 0 has read y                |
//	  |                                |    SYN-ACK, number x, acks y+1  |
//	  |                                |-------------------------------->|
//	  |                                |                     ACK of x+1  |
//	  |<-----------------------------------------------------------------|
//	  |                                | leg 1 has read x                |
//	  | one TCP connection: the relay rewrites addresses and ports       |
//
// So a portal, and every NAT and firewall on its way, sees an outgoing
// connection as any other: SYN, SYN-ACK, ACK. It is connected only when the
// other portal dials too; until then its SYNs stay unanswered, and a portal gives
// up as for any host that is silent. A SYN with a forged source binds
// nothing: its sender never sees the number that it would have to acknowledge.
// Maximum segment size, window scale, selective acknowledgements and timestamps are
// agreed between the two portals, and nothing else is. The two legs are of one
// IP version. End and reset are passed on as they are. A portal that connects
// anew with the same number begins from a new source port.
//
// # UDP: the bind
//
// A session with [wire.TransportUDP] has one bind a leg (connection 0), which all its QUIC carriers
// share. A relay sends each datagram of one leg's bound source on to the other's, unchanged, and
// keeps up to 8 for a leg that is not bound yet.
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
// to its new source: so a portal binds anew when its network has changed or its NAT has
// forgotten it, and the carriers go on.
//
// Everything else is met with silence: other lengths, other attributes, an unknown
// session or leg, a wrong MAC, an old counter, a NONCE of another leg, source
// or time, and requests for more challenges than a relay gives in a second.
// The portal repeats a request until it is answered, and starts
// again with a higher counter when its second request stays unanswered.
//
// Data is never STUN-shaped: a packet with the STUN cookie in its bytes 4 to 7
// is for the relay and is not sent on.
//
// # UDP: the echo
//
// NATs forget a flow on which nothing is sent, and each after another time. So a
// portal on whose leg QUIC has been silent for an interval asks the other portal,
// beside QUIC, with an Echo; the relay sends it on like all data. The answer shows
// that both networks have held the way open for so long, and the packets hold it
// open. A portal that is not answered twice binds its leg anew and goes on asking.
// If it then has another address, its own network has forgotten the leg; else the
// other's has, and it says so in its next Echo (lost). Each keeps the longest
// silence that its own network holds, and asks after that or after the other's
// interval, whichever is shorter. Who has asked opens its own NAT by that and learns
// about the other's alone: so the next one to ask is the other; only if that says
// nothing for half an interval more, 3 seconds at most, does the same portal ask
// again.
package leg
