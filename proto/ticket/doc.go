// Package ticket makes the sessions at which two portals meet while no server is
// there: standing sessions that a relay was not told of, and that it works out by
// itself from a key of the server's and the session's id.
//
// A [wire.Ticket] is such a session, at a relay's shared ports. The server makes its id and both
// secrets from a key that it gives the relay ([wire.TicketKeys]), each relay its own, so no relay
// needs to know of it before a leg of it comes (package leg says how it is proven). Tickets end on
// a grid of 12 hours, 24 to 36 hours after they were issued, so that both portals hold the same;
// there are at most 3 for a pair, one for a relay. A relay takes them for a quarter of its sessions
// at most, and ends one where a session of the server's needs the place.
//
// A portal that has no server and no carrier to a peer with which a valid grant joins it waits,
// from a second or two on, at the relays of that peer's tickets, and there they meet: over TCP with
// the number Meeting, over UDP bound at the shared port. Leg 0, the TLS client, is the portal with
// the smaller name. What may be opened, the grants say, as ever. Portals also come there when a
// tunnel has lost its carriers and no other comes up: the server may not know yet that it has lost
// one of them.
//
// For the time without a server, also when it is started anew meanwhile, a portal keeps grants,
// stamp keys, removals, tickets, the list of servers and the addresses at which they were reached.
// What it reads back it checks as if it had just been put, and it holds until the next
// GrantsComplete or the end of its stamps.
package ticket
