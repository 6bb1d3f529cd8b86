// Package tunnel is the association of two portals: it owns the carriers and
// every stream and flow between the two, and outlives the carriers.
//
//	application socket -- pipe -- stream -- carrier -- peer
//	UDP socket ---------- Flow ------------ carrier -- peer
//
// A pipe copies between an application's socket and its stream: one goroutine
// reads the socket; what comes from the peer is written to the socket by the
// carrier's reader as far as it fits, and by a second goroutine of the pipe
// only when it does not. So a byte that crosses an idle tunnel wakes one
// goroutine at each portal.
//
// A pipe is attached to one carrier at a time, and moves to another when that
// one is lost, silent, retired, or of the worse kind; its application notices
// nothing. A flow is attached to none: its datagrams take the best carrier of the
// moment, or a moment ago. A tunnel that has lost its last carrier lingers: everything waits for
// another, until the peer was not heard for 2 minutes or what Config.Linger says; then streams are
// reset.
//
// A [Tunnel] decides nothing: whom it is with, and which carriers are its own, is
// known to whoever calls Attach (by TLS and the [Identity]); what the peer may
// open, to the [Handler].
//
// # Identity
//
// Both portals work out what makes a tunnel the same over many carriers from the TLS exporter
// (RFC 8446, section 7.5; RFC 5705) of its first carrier:
//
//	binding = exporter "EXPORTER-netport-tunnel", no context, 32 bytes
//	id      = HMAC-SHA256(binding, "netport tunnel id"), the first 16 bytes
//	secret  = HMAC-SHA256(binding, "netport tunnel resume")
//	proof   = HMAC-SHA256(secret, binding of this carrier || 0 of its TLS client, 1 of its server)
//	direct  = HMAC-SHA256(secret, "netport direct"), the first 16 bytes: session of its direct carriers
//	ids     = HMAC-SHA256(secret, "netport probe id"): 8 bytes name it in probes to the TLS client of
//	          that carrier, the next 8 in those to its server
//	key     = HMAC-SHA256(secret, "netport probe key"), of probes
//	machine = HMAC-SHA256(secret, "netport machine" || role in the first carrier, as of a proof ||
//	          name of the sender's machine), the first 16 bytes
//
// Which carrier is whose, package meeting finds out.
//
// # Candidates
//
// CANDIDATES ([wire.Candidates]) says where its sender may be reached without a relay: all such
// places it has, under a number that rises. It is said again on each carrier that comes, and when
// it has changed or a carrier has gone. What is done with it, package path/direct says.
//
// # Relay or direct
//
// Streams and flows take the carriers on a direct path before those by a relay, unless a round trip
// there takes clearly longer, by a quarter and 5 ms, for 5 seconds; then they take it again when it
// does not for 10 seconds, or longer each time. Where the policy says "only" they take nothing else,
// wait for it, and are refused or reset (ReasonNotDirect) where none comes, and a portal takes
// no OPEN, RESUME or DATAGRAM by a relay; where it says "never" there is none.
//
// Streams prefer TCP, which carries more, and flows QUIC. Of direct carriers those come after others
// that take clearly longer than the quickest, by the same measure and for as long: TCP may go
// another way than UDP.
//
// Streams go to a better carrier at once: what was under way is sent again. Flows stay on one that
// works until the better one has been it for a second, or ten round trips up to 5 seconds, and the peer has answered
// there; what is silent, gone or forbidden they leave at once.
//
// # Flows
//
// What streams say to each other is in package [stream]. OPEN of a flow has the first datagram in
// it; DATAGRAM has one each, in both directions. Datagrams keep their boundaries and sizes, 0 to
// 65,507 bytes. They are sent once or not at all: where a queue is full they are dropped and
// counted. Up to 16 of them, or 128 KiB, wait while the exit opens its socket. A
// flow is not accepted in words; it is refused, or ended, by RESET. It is bound to
// no carrier: its datagrams are taken from any, and its OPEN is said again on
// another carrier until a datagram has come back.
//
// The entry ends a flow that was idle for 2 minutes (RFC 4787, REQ-5); for 30 seconds if it was one
// exchange of at most 2 seconds, answered, with a target port below 1024; the exit one
// that was for 150 seconds. What ICMP says of a target that has never answered ends its flow,
// with ReasonTargetRefused or ReasonTargetUnreached; the next datagram of that client opens
// another. A target that has answered keeps flow and port. Flows take turns on a
// carrier; where its queue is full, the flow that has most in it loses its oldest. What
// has waited for half a second is dropped.
//
// # Bounds, and the end
//
// A tunnel has 4,096 streams and flows open at most, of which the exit is still dialling 512; more
// are refused (ReasonBusy).
//
// CLOSE ([wire.TunnelClose]) is the last frame of a tunnel and says why. With ReasonIdle it is a
// question: its sender has nothing open and opens nothing more until the
// answer; a peer that has nothing open either answers with the same, and both
// close; a peer that has, goes on.
package tunnel
