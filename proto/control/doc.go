// Package control is one framed control connection: between a portal and the
// server, or between a relay and the server, inside TLS 1.3. Messages are framed as package
// [wire] says (type, length, body), which has them all.
//
// A [Conn] has one goroutine, that in Run, which waits; others come and go with what
// there is to read and to write. Send only queues. So a slow peer blocks nobody: when
// its queue is full (16 MiB) the connection ends, and thousands that are idle cost a server
// little.
//
// # Greeting
//
// A portal or relay dials the server: the ports it was given, or 443 and then
// 80, each a moment after the one before, over TCP and then over UDP (package [overquic]), and greets
// the first that connects. Where it was reached last in the same network is dialled first; if that
// was over UDP, TCP is dialled with it. Where all ports refuse TCP, a server is being started anew,
// and UDP waits until they did so three times. Where a proxy is configured, it asks that to connect
// (HTTP CONNECT or SOCKS5; package [proxy]), to the server's name, and to the shared port of a relay
// for a leg inside TLS.
//
//	portal or relay                          server
//	    | TLS, both proven                      |
//	    |<------------------------------------->|
//	    | Hello (version, software)             |
//	    |-------------------------------------->| key enrolled for this name?
//	    |    Welcome (version, time, stamp keys,|
//	    |            where it sees the other)  |
//	    |<--------------------------------------| or Goodbye, and the end
//
// All of it together has 10 seconds ([HandshakeTimeout]). [wire.Hello] is the dialling side's first
// message and is said once; anything else first, or a second one, is a protocol error. From then
// on both send messages of their direction whenever they like; a known type in the wrong direction
// closes the connection.
//
// Hello has the highest version that its sender speaks. The server
// answers with the version that both speak from then on, at most that one; if
// there is none it says Goodbye with [wire.ReasonVersion] and a text that says which side is older,
// with both numbers. Who cannot speak the version of a [wire.Welcome] closes. Versions below
// [wire.ControlVersion] are not spoken any more.
//
// # Keepalive and end
//
// The connection then lives as long as it can. A portal or relay that has heard
// nothing for 4 minutes sends Ping; the interval grows to 9 minutes where the network
// holds idle connections that long, and shrinks to 1 minute where it does not ([Pauses]). Over UDP
// it is 9 minutes. A server asks after 10 minutes of silence. Who then hears nothing for 15 seconds
// closes (5 seconds where there is something to say). Ping is answered by Pong with the same token.
//
// A message that has begun must be whole within 10 seconds. A server takes 2,000 messages of a
// portal at once and 200 a second from then on, a hundred times as many of a relay, and closes
// where more come.
//
// Goodbye is the last message of its sender, with the reason; a connection that ends without it was
// cut. Who was cut off dials again after a pause, which is drawn between half and all of a
// bound that doubles from 0.5 s to 20 s, and begins anew after a connection of
// more than 10 s. One identity has one connection: a newer one takes the
// older's place ([wire.ReasonReplaced]), but not within 10 s of the last such change
// ([wire.ReasonBusy]). Two that are alive at the same time are two machines with one identity,
// of which the server tells its operator.
//
// # After the greeting
//
// The server says which certificates are good (package keeper), and which grants a portal has
// (package grant). It hands out tickets, for the time without it (package ticket).
//
// # Relays
//
// A relay says [wire.RelayReady] after Welcome: its session ports, shared ports,
// capacity, transports, and the sessions it still holds, in several messages if
// they are more than 100. What it offers does not change within a connection.
// It says [wire.RelayLoad] when its load has changed, at most once a second. It
// answers [wire.CreateSession] with [wire.SessionReady] or [wire.SessionRefused], and
// [wire.EndSession] with [wire.SessionOver], also for a session it does not know. It sends SessionOver
// of its own accord when a session's lifetime is over.
//
// A RelayReady that names fewer than 100 sessions is the last one: what the relay has
// not named by then is over. The server takes up a session that a relay still holds and it does not
// know: it was started since. It can end such a session as any other; it does not know
// its secrets, so a portal that asks for the pair gets a new session, and the
// old one ends. It ends at once what no grant joins any more, and what a relay
// holds beside a session that was opened since. A relay cannot displace with
// such a word what another relay holds.
//
// After Welcome, and whenever a relay comes or changes its ports, the server
// tells each relay where all others are ([wire.OtherRelays]). A relay takes no leg from
// their ports: neither a preface nor a bind, and no packet mode from their
// addresses. Nor does it from addresses of its own machine.
//
// Portals learn a relay's addresses from the server, which knows them from the
// relay's enrolment, never from the relay; the ports, those for packet mode all
// 8, must be among those of RelayReady, and session ports are 1024 or above. A portal dials a relay at a
// loopback address only if it reached its server at one, at a private address
// only if its server's is private or loopback, and at no link-local,
// multicast or otherwise special address at all. Where a server of [wire.Servers] leads, by its
// name or address, is judged alike, but that private addresses are dialled; what the
// portal's own configuration names is not judged. Portals measure the round trips of all relays
// ([wire.Relays]) and report them ([wire.RelayTimes]); the server picks a relay by the sum of both
// portals'.
//
// A relay that is about to stop says [wire.RelayDraining]: it takes no session any more.
// For each session that it holds the server opens another elsewhere and tells both
// portals (Session with Replaces; again, to one that connects anew meanwhile); they
// move, and the SessionDone of either ends the old one. What has not moved when the
// relay's time is over ends with SessionOver (ReasonShutdown).
//
// # Sessions
//
//	opener                server                relay              other portal
//	  | OpenSession         |                     |                     |
//	  |-------------------->| grant joins the two |                     |
//	  |                     | CreateSession       |                     |
//	  |                     |-------------------->|                     |
//	  |                     |        SessionReady |                     |
//	  |                     |<--------------------|                     |
//	  |     Session (leg 0) |                     |     Session (leg 1) |
//	  |<--------------------|------------------------------------------>|
//	  | dials, proves leg 0 |                     | dials, proves leg 1 |
//	  |------------------------------------------>|<--------------------|
//	  | TLS from end to end: leg 0 is the client, then HELLO both ways  |
//	  |<--------------------------------------------------------------->|
//
// Either portal of a grant may open. [wire.OpenSession] has a number of its sender's,
// which the [wire.Session] or [wire.Refused] that answers it repeats; the other portal's
// Session has number 0. Each Session has the receiver's own leg secret, and
// nobody but the relay has both; how a leg is proven with it, package leg says. What a session may
// use is the transports that its opener, the other portal (if it asked too) and the relay have in
// common; packet mode only if the relay gave ports for it.
//
// Two portals have one session at most, but while one takes another's place. If both
// ask at once, the one with the smaller name is the opener and has leg 0; the
// other's request is answered by the same session. A request for a pair whose
// session is older than 5 seconds means that the portal has no carrier there:
// the old session ends (ReasonReplaced) and a new one is opened. So does one
// that names the session's relay as Lost. A relay that
// refuses, or does not answer within 5 seconds, is passed over for the next, and
// one that is Lost is taken only if there is no other, and asked for a sign of life.
// The policy may name the relay at which alone a pair meets.
//
// Refused tells the reason only to a portal that shares a grant with the peer
// it named; to others every peer is [wire.ReasonNotGranted], without a text.
//
// A session lasts while it is used: a relay drops one for which, as long as its
// lifetime, no leg was proven and nothing was carried, and one of which no leg
// was proven, and no connection in packet mode made, in its first 30 seconds. A portal that has
// closed its tunnel says [wire.SessionDone]; the server tells the other portal ([wire.SessionEnded])
// and the relay (EndSession). A server ends a session when no grant joins the
// two any more. SessionEnded ends the session's carriers, and the tunnel too if
// its reason is not a passing one ([wire.Reason.Passing]). A
// server that is gone ends nothing.
package control
