// Package meeting makes carriers in one session of two portals: it races the
// session's ways to a carrier on which both are proven, exchanges HELLO, and
// tells which tunnel the carrier belongs to.
//
//	path    ways of the session: packet mode, splice mode, QUIC
//	  \
//	carrier   a connection on a way, TLS or QUIC, the peer proven
//	    \
//	  meeting   HELLO: the tunnel that both have, or a new one
//
// A [Meeting] decides nothing about tunnels; it asks [Tunnels], and its owner
// attaches what it returns. A session has a first carrier (First), more that the
// TLS client announces on a carrier that lives (More), and others without an
// agreed number when all were lost (Again).
//
// # Which way
//
// Portals may dial several ways for one carrier (packet mode, QUIC, splice mode),
// in any order, and handshake on each that connects. The TLS client takes the
// first on which the handshake completes, sends its HELLO there, and closes the
// others without a frame. The TLS server sends no frame before it has the client's
// HELLO, and takes the way on which that comes. So both take the same. With the
// ways of a session's first carrier, as soon as splice mode has failed and after a second
// at the latest, goes one more: number Meeting (package [leg]), in another mode of splice.
// Something on the way may let connections open and break, or swallow, what is not TLS to a
// well-known port.
//
// # Which tunnel
//
// The first frame of each side is HELLO ([wire.TunnelHello]) with version, session and the
// carrier's number; all three must be the same on both sides, or the carrier is closed. From its
// dial to the peer's HELLO a carrier has 10 seconds.
//
// HELLO also says which tunnel its sender has with this peer, if any: the
// newest that is not over ([tunnel.Identity]). If both name the same tunnel, and both proofs are
// right, the carrier belongs to it. Else it is the first of a new one, and what either had named is
// over, on both sides, unless it has a carrier that answers (the server asks those that are not
// silent, for 2 seconds at most, before it says HELLO): then it goes on beside the new
// one. So does one on which the peer has not said HELLO yet: nobody waits for what a peer
// says that may be waiting for the same. A wrong proof closes the carrier and
// changes nothing.
//
// A TLS client that named no tunnel does not wait for the server's
// HELLO: OPEN and DATA may follow its own at once. Nor does one whose carrier is of the tunnel
// that it names or of none, a further one or one on a direct path: it closes it when the
// server's HELLO names another, or proves nothing.
//
// # How many
//
// Both sides dial carrier 0 on the Session message. The TLS client of a session may then
// announce one more with CARRIER ([wire.AddCarrier]) on a carrier of it, numbers rising by
// one, each used once (announcements may overtake each other; on a direct path they come
// around after 1,023), and both dial it; a tunnel has 8 at
// most (this implementation makes up to 4 over TCP and one over QUIC). When two portals have lost
// all carriers of a session they dial Meeting connections and QUIC anew, and ask for another
// session.
//
// Carriers on a direct path belong to no session of a server's: HELLO names the session that
// both work out (direct, of [tunnel.Identity]) and the number Meeting, or that of CARRIER, and the
// carrier is of this tunnel or of none. Further ones are over TCP. The carriers by a relay stay; a portal that
// has something open and lost the last of them asks for another session, to have it in reserve.
package meeting
