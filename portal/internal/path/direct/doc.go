// Package direct finds ways between two portals that lead over no relay, and holds them
// open. A tunnel comes up over a relay; from then on, for its whole life, a Path looks for
// such ways and never gives up:
//
//	Finder   what all tunnels share: the portal's own addresses, the shared sockets,
//	         what probes belong to whom, what may still be sent for one peer
//	Path     one tunnel: the addresses of its peer, what was asked and answered there,
//	         the open ways; a session like those at relays, of which the server
//	         knows nothing
//	search   the decisions of a Path, without clock or socket
//
// # What is named
//
// Each portal tells the other where it may be reached, end to end ([wire.Candidates]):
// addresses of its interfaces with the port of its UDP socket, of the same socket as
// relays and the peer have seen it, mappings that its router has made; a new list
// whenever they change. The server learns none of them.
//
// With the list goes the name of the sender's machine, if it has one that only what runs
// there can know, in a form that tells the peer alone (package tunnel, Identity). A portal that
// works out the same from its own machine's name is on that machine, and both name their loopback
// addresses too.
//
// # What is probed
//
// A portal sends probes (package [probe]) to what the other has named, both as soon as they
// know, so that each opens its own NAT for the other: 5 within a second, then after
// pauses that double from 1 second to 5 minutes, for ever (while something direct carries
// the last is an hour); anew with a new list, when the
// network has changed, and when a way is lost. Where a probe of the peer has come
// from is asked too, at once. A way is open when a probe was answered from where it
// was sent to: the token in the answer was read there by somebody who knows the tunnel's
// key.
//
// A list is believed in nothing: nothing but probes goes where no way is open, and few of those.
// So nobody can have a portal send anything else to somebody else. Never probed are
// addresses that are no host's (loopback, link-local, multicast, broadcast, unspecified,
// reserved, metadata services, in whatever encoding), unless the peer is proven to run on
// the same machine and they are loopback; ports below 1024, the portal's own sockets, the addresses
// of server and relays. A peer has 16 addresses in its list, and 16 more from which probes have
// come. To an address that has never answered go 5 a second and 30 in all, and to all of
// one peer's 480, whatever it names and in whichever tunnel (and as many beside at the word of
// neighbours); one more an hour and every 4 minutes. All is given back when the portal's own
// network has changed. Answers to addresses that have not answered themselves are bounded too: 160,
// and one every 5 seconds.
//
// # UDP
//
// On an open way the TLS client of the tunnel's first carrier dials QUIC, over the same
// socket; the server takes connections from where its own probes were answered within
// the last 10 seconds, 4 addresses at most, and from where one runs. Whatever else comes there, or
// from elsewhere, is dropped. While QUIC is silent the portals hold the way open with probes, as
// they do over a relay with echoes (package [leg]): interval and lost mean the same. When the
// client's address changes, the connection goes on from the new one once that is an
// open way; when the server's does, the client dials again. So it does, beside the connection that
// there is, before a certificate ends, and leaves that when the other carries.
//
// # TCP
//
// For TCP a portal listens on one port while it has a tunnel, dials from the same, and
// names it like the other; where relays or the server (Welcome) see it at another address, it
// names that with the port of TCP too, for many NATs leave ports as they are (where the
// server sees a proxy it does not). Both portals dial what the other
// has named, at once, 100 ms later from a second port, and again after pauses that grow to 5
// minutes; a try counts for four probes, the first with its second port for eight. A connection begins with a probe that asks
// and one that answers (package [probe]); a portal closes, without a word, what does not
// begin so within 5 seconds. Then one that the TLS client takes becomes a carrier as any other
// over TCP, beside the one over QUIC.
//
// While one carries, the TLS client may announce others by number (CARRIER), for more streams or
// in place of those whose certificate ends. Who has dialled the first, or the TLS client where both
// have, dials the address that was reached then, from the port that is as far above that of the first
// as the number says (around 65,535 it goes on at 1024), or from any other that is free. The other
// dials that port where it has seen the first come from, from its own: that opens its NAT, and counts
// for four probes, as ever, until one has come. So further ones come through a door that is open, and
// through NATs that leave ports as they are. The TLS client has the server dial 16 at once, and one
// every 10 seconds.
//
// # How soon
//
// From when both have the way by the relay until both have one on a direct way it takes
// three round trips at least: half of one until the client knows the server's addresses, one
// for a probe and its answer, one for QUIC, and half until its HELLO is there. Over TCP it
// takes four where both NATs must be opened, since to connect takes one before the probe.
//
// The ports of a symmetric NAT are not guessed ("birthday probing"), which could open it
// for one that is port-restricted: M probes to its ports meet one of N sockets behind it with
// a chance of 1 - (1 - M/64,512)^N. All that may be sent for one peer, 480 probes there and 30
// to the one address from N = 30 sockets, is 20 in 100, or 36 where the NAT uses half of
// the ports, and comes back in 32 hours: a week until such a pair has met, most likely, in which
// nothing is left for the addresses that it has named. For one in two it takes 1,490.
package direct
