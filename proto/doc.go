// Package proto is the protocol of Netport: what portals, servers and relays
// say to each other. This page is its specification. The packages below hold
// the layout of every message in their own documentation, byte by byte, and the
// code that reads and writes them; this page says who says what to whom, when,
// and what follows.
//
//	wire      control messages and tunnel frames; reasons
//	identity  names, certificates, TLS
//	endpoint  the URIs that say where a forward listens and what it dials
//	grant     what a portal may do, under two signatures
//	leg       how a portal proves its leg of a session to a relay
//	probe     how portals find ways to each other that lead over no relay
//	control   one control connection: greeting, deadlines, keepalive
//	ticket    the sessions in which portals meet without a server
//	gate      bounds on connections that have not proven themselves
//	address   what an IP address really means
//	invite    the join token
//	overquic  the same over QUIC, where TCP is shut
//	enrol     enrolment, on the side of who joins
//	keeper    what keeps the credentials of portals and relays alive
//	clock     the time, on devices that may not know it
//	local     the requests of a command line to its daemon, over a Unix socket or TLS
//	proxy     outbound connections through a proxy
//	conffile  configuration files; command: conventions of command lines; join: one of them
//	metrics   what daemons count, as Prometheus reads it
//
// What follows local is no part of the protocol, nor are the packages that are not listed:
// they are what daemons need on their machine.
//
// # Words
//
// A portal is the daemon of one end. A forward joins a listener on its entry
// portal with a target that its exit portal dials; a portal can be both. A
// grant is one forward for one entry and one exit, signed. A session is a
// meeting of two portals at a relay, brokered by the server; each portal has
// one leg of it, 0 or 1. A carrier is one connection between the two portals
// over the relay; a tunnel is what two portals have in common: carriers, of one
// session or of several, and over them streams (a forwarded connection each) and
// flows (a forwarded UDP association each). Carriers and sessions come and go; the
// tunnel and its streams stay.
//
// # Conventions
//
// Numbers are big endian. A blob is a 16-bit length and its bytes. A text is a
// blob of valid UTF-8, for people: nobody acts on it. A count is a 16-bit
// number of elements that follow. An address is one byte of length (0, 4 or
// 16) and its bytes; IPv4 is never written as IPv4-mapped IPv6. Times are Unix
// seconds, and none is later than the year 9999. Names are 1 to 63 bytes of a-z,
// 0-9, '.' and '-' that begin and end with a letter or digit, and are compared
// byte for byte.
//
// Every value has one encoding. A receiver refuses a message that is cut,
// has bytes left over, or holds a value its field does not allow; it
// checks every length and count against its limit, and against the bytes that
// are there, before it allocates.
//
// # Identities and TLS
//
// Every connection but the bare relay legs is TLS 1.3 with a certificate on
// both sides. A leaf has exactly one subject alternative name, a URI:
//
//	spiffe://DOMAIN/ROLE/NAME      ROLE is portal, server, relay or admin
//
// It must be of the receiver's own domain, within its validity by the
// receiver's clock, no CA, under a CA that the receiver trusts, not revoked, nor
// anything above it, with at most 4 certificates sent. Of several chains that can be
// built one that is right is enough. Its extended key usages must name the side it is used
// on (client or server authentication) and must not be "any". Keys are ECDSA on
// P-256 or P-384, Ed25519, or RSA of 2,048 to 4,096 bits. There are no session
// tickets and no early data. The name in clear (SNI) says nothing.
//
//	connection                   dials            ALPN               peers
//	control                      portal, relay    netport-control/1  role portal or relay; role server
//	enrolment                    who has no valid netport-enrol/1    none, or a portal's, relay's or admin's
//	                             certificate                         that may have expired; role server
//	carrier                      leg 0 is the     netport-tunnel/1   role portal, the name in Session
//	                             TLS client
//	leg on a relay's shared      portal           netport-relay/1    role portal; role relay, the name in
//	port, inside TLS                                                 Session
//	administration               an operator      netport-admin/1    role admin; role server
//
// Control, enrolment and administration go over TCP, and where that is shut over QUIC version 1
// (RFC 9000), to the same port of UDP: what follows the handshake, which is the same, goes over one
// bidirectional stream that the side opens that dials. It is tried where TCP has not connected after a
// moment, and never through a proxy. A server answers a first packet with a Retry alone, which is smaller, and
// begins nothing before its token comes back; to all else that belongs to no connection it answers
// nothing. Who has dialled has a packet sent after 25 seconds of silence, for NATs; after 50 the
// connection is gone.
//
// A server and a relay on one machine may have one TCP port, which is the server's. It hands
// over to the relay, with what it has read, a connection that begins as a bare preface does, or
// whose client asks for netport-relay/1 and for nothing else.
//
// A peer without the protocol of the connection, or with any other, is refused
// in the handshake. A permission names a portal by its name and its key: the
// entry checks the exit's key, and the exit the entry's, against the grant
// before anything is opened under it. Who is refused for its certificate gets
// the alert bad_certificate, whatever was wrong.
//
// # Enrolment
//
// Who is to become a portal, relay or admin gets a token (package invite) out of band: role,
// name, the servers, the fingerprint of the authority above their certificates, the
// policy key, an id and a secret. It makes a key and connects with netport-enrol/1, to the ports of
// the control protocol. The server's chain ends with its root. Who joins finds the
// authority of the token in it, or ends the handshake, and trusts that one alone.
//
//	who joins                                server
//	    | TLS, the server proven                 |
//	    |<-------------------------------------->|
//	    | Enrol (token, secret, request)         |
//	    |--------------------------------------->| token good? for this name?
//	    |                      EnrolWait (key)   | an operator is to approve or to sign:
//	    |<---------------------------------------| at once, and then every 30 seconds
//	    |              Authorities, Enrolled     |
//	    |<---------------------------------------| or EnrolRefused
//
// TLS and Enrol together have 10 seconds; a server that is silent for 75 is gone. The
// policy key of the token must be in Enrolled and have signed Authorities, and is pinned
// from then on. A token is good for one key until its end: the same key may ask again, and gets its
// certificate again; while an operator has to sign that elsewhere, for 30 days from when
// it asked last. Every token that is not good is refused in the same words.
//
// Without a token the same exchange renews the certificate that was presented in the
// handshake, for as long after its end as the server allows, unless it was revoked or
// its key is no longer the name's.
//
// # Administration
//
// What an operator's command asks a server over its Unix socket, it asks from another
// machine over TLS, as an admin: one request and one answer a connection, in the framing
// of package local. While a server works on a request it gives a sign of life every 3
// seconds, for a minute unless the command may take longer; who asks gives up after 2
// minutes without the first one, and after a minute without the next. The certificate of
// an admin is good for a TLS client alone, and its key must be the one that is enrolled
// under its name. Each connection, and what it has asked for as long as that is not done,
// ends when the admin is revoked. An admin signs
// nothing. It renews its certificate over the enrolment protocol, with the one it has.
//
// # Certificates in the course of time
//
// A portal or relay asks for a new certificate (Renew) when two thirds of the life
// of its own and a random part of a tenth are over, and connects anew with it. Renewed
// has the chain; RenewRefused says why not, and what is held goes on. With ReasonWaiting an
// operator has to sign first, where the key is, and Renewed follows when he has; whoever
// connects anew meanwhile asks anew. The request may
// be for a new key; until the server has seen that, permissions name either key. Nothing that runs
// is touched.
//
// Authorities says which CAs the domain trusts, and the key that signs certificates
// now. It comes after Welcome and after each change, and is taken only with the
// signature of the pinned policy key, and with no version below the one held. Whoever
// has a certificate that another key signed renews it within the hour. So one CA
// takes the place of another: both are trusted, all renew, the old one is dropped.
// Dropping cuts nothing.
//
// What is revoked (Revocation) is a name's certificates from before a moment, or a key,
// of whomever, or one certificate of an authority. After Welcome a portal or relay says how far
// it knows the revocations (RevocationsHeld); the server sends the later ones,
// RevocationsComplete, and from then on each that is new. They are kept on disk, hold for
// ever, end what runs, and count in every handshake. A server whose epoch is below
// that of RevocationsHeld has lost some: both sides say so, nothing is forgotten, and who
// holds more asks for all of them (RevocationsHeld 0). None is forgotten with time: clocks
// may be behind, certificates from elsewhere may last long, and a key may be certified
// anew. Of one name the last revocation takes the place of the others. At the bound (below)
// a server refuses to revoke more, and a portal or relay that is told of more holds on to
// those it has, and says so.
//
// # Time
//
// A portal or relay goes by the clock of its system, but never by a time before its
// program was built, before what servers told in earlier lives, or before what one has told in
// this. Welcome and Enrolled tell the time. It is taken only if the server's certificate
// is valid at it. During these handshakes a certificate that is not valid yet by the local
// clock passes, if all else is right, and is judged again when the time was told; one
// that has expired does not. What is kept for the next life rises by at most 7 days at once,
// and once an hour. A clock that is ahead is not set back.
//
// Where a clock jumps, timers go on, and so does what is valid by the new clock. What has
// ended by it, a stamp, a permission or a certificate, ends what runs under it at that
// portal within a minute; server and relay end nothing that runs for it.
//
// # Control: greeting
//
// A portal or relay dials the server: the ports it was given, or 443 and then
// 80, each a moment after the one before, over TCP and then over UDP, and greets the first that connects. Where
// it was reached last in the same network is dialled first; if that was over UDP, TCP is dialled with it. Where
// all ports refuse TCP, a server is being started anew, and UDP waits until they did so three times. Where
// a proxy is configured, it asks that to connect (HTTP CONNECT or SOCKS5), to the
// server's name, and to the shared port of a relay for a leg inside TLS. Messages are framed as package wire says (type, length, body).
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
// All of it together has 10 seconds. Hello is the dialling side's first message
// and is said once; anything else first, or a second one, is a protocol error.
//
// Versions: Hello has the highest version that its sender speaks. The server
// answers with the version that both speak from then on, at most that one; if
// there is none it says Goodbye with ReasonVersion and a text that says which side is older, with both
// numbers. Who cannot speak the version of a Welcome closes. This is version 6;
// version 1 had no packet mode, version 2 no tickets and no moves of sessions,
// version 3 no renewals and no revocations, version 4 no signature in GrantsComplete,
// version 5 had candidates in OpenSession and Session, and none of them is spoken any more.
// Within a version nothing in a message ever changes: a new field is a new type
// of message. A type that the receiver does not know is skipped and counted; a
// known type in the wrong direction closes the connection. A transport bit that
// it does not know is ignored; a reason that it does not know is a reason all
// the same.
//
// The connection then lives as long as it can. A portal or relay that has heard
// nothing for 4 minutes sends Ping; the interval grows to 9 minutes where the network
// holds idle connections that long, and shrinks to 1 minute where it does not. Over UDP it is 9 minutes. A server asks after 10 minutes of silence. Who
// then hears nothing for 15 seconds closes (5 seconds where there is something to say). Ping is answered by Pong
// with the same token. A message that has begun must be whole within 10
// seconds. A server takes 2,000 messages of a portal at once and 200 a second
// from then on, a hundred times as many of a relay, and closes where more come. Goodbye is the last message of its
// sender, with the reason; a connection that ends without it was cut. Who was
// cut off dials again after a pause, which is drawn between half and all of a
// bound that doubles from 0.5 s to 20 s, and begins anew after a connection of
// more than 10 s. One identity has one connection: a newer one takes the
// older's place (ReasonReplaced), but not within 10 s of the last such change
// (ReasonBusy). Two that are alive at the same time are two machines with one identity,
// of which the server tells its operator.
//
// # Control: grants
//
// After Welcome the server sends a portal every grant that concerns it
// (PutGrant), as entry or as exit, then GrantsComplete with the version of the
// policy, then PeerState for each portal it shares a grant with, and RelayState
// if it has a relay that could hold a session.
//
//   - What a portal holds from an earlier connection stays valid until
//     GrantsComplete; what was not put again is then gone.
//   - A change of policy is RemoveGrant for what is taken back, to exits before
//     entries; PutGrant for what is new; and GrantsComplete to all concerned.
//     What runs under a removed grant is cut at the next GrantsComplete, or a
//     second after the removal, unless another grant joins the same pair of
//     ends in the same way (grant.Permission.SamePair).
//   - A grant is put again with a fresh stamp when half the life of its stamp
//     is over.
//   - With the grants come the Tickets for the time without a server (below), the
//     Servers of the domain, and the Relays, whose round trips the portal measures
//     and reports (RelayTimes); the server picks a relay by the sum of both portals'.
//   - PeerState follows every change of a peer's connection to the server, and
//     RelayState the coming of the first relay and the going of the last.
//
// A portal uses a grant while both signatures are right, by the policy key it
// was enrolled with and by a stamp key of the last Welcome, while neither
// the stamp nor the permission has ended, and in its hours only. A stamp lasts 24 hours and is dated
// back one; a portal takes none that lasts longer than 7 days. So a portal
// that has lost its server goes on for up to a day, also when it is started anew
// meanwhile, if it has kept what it was put.
//
// Nothing that was taken back comes back. A portal remembers the highest version
// of which it had every grant, takes no other grant of a lower one than it holds,
// from the server or from an entry (of that version itself only from the server),
// and no GrantsComplete lowers it; one that follows a grant which could not be
// taken does not raise it, nor does one whose version the policy key has not signed.
// So nobody else makes portals wait for a version that never comes. Of that version, or
// above it, it remembers too what the server has removed or not put again, and takes none of
// it back from anybody. A server that cannot sign removes without raising the version;
// what is to be granted again after that is signed anew, as a later version.
//
// A portal that changes its key has permissions for both keys for a while. They
// are of one pair of ends, and what runs goes on. Something is opened where a
// permission of the pair that holds now names the key which the peer has proven on
// the carrier of the OPEN, whichever of them that shows. A carrier that was proven
// with a key which no permission names any more, while others join the two portals,
// is closed within a minute of that, as is one whose certificate is over; its TLS
// client makes another before, with the certificates of now.
//
// The terms of a permission are kept at both ends: the hours by each; clients by
// the entry, and by the exit as far as OPEN names the source; direct by each, for
// what is opened; rate, streams and month by the exit, for all that runs under the
// pair, in bytes of applications. Of several targets of one listener the entry
// takes the first that it can reach, in the order of their ranks, and the next if
// that refuses before anything was taken from the client.
//
// # Control: relays
//
// A relay says RelayReady after Welcome: its session ports, shared ports,
// capacity, transports, and the sessions it still holds, in several messages if
// they are more than 100. What it offers does not change within a connection.
// It says RelayLoad when its load has changed, at most once a second. It
// answers CreateSession with SessionReady or SessionRefused, and EndSession
// with SessionOver, also for a session it does not know. It sends SessionOver of
// its own accord when a session's lifetime is over.
//
// A RelayReady that names fewer than 100 sessions is the last one: what the relay has
// not named by then is over. The server takes up a session that a relay still holds and it does not know:
// it was started since. It can end such a session as any other; it does not know
// its secrets, so a portal that asks for the pair gets a new session, and the
// old one ends. It ends at once what no grant joins any more, and what a relay
// holds beside a session that was opened since. A relay cannot displace with
// such a word what another relay holds.
//
// After Welcome, and whenever a relay comes or changes its ports, the server
// tells each relay where all others are (OtherRelays). A relay takes no leg from
// their ports: neither a preface nor a bind, and no packet mode from their
// addresses. Nor does it from addresses of its own machine.
//
// Portals learn a relay's addresses from the server, which knows them from the
// relay's enrolment, never from the relay; the ports, those for packet mode all
// 8, must be among those of RelayReady, and session ports are 1024 or above. A portal dials a relay at a
// loopback address only if it reached its server at one, at a private address
// only if its server's is private or loopback, and at no link-local,
// multicast or otherwise special address at all. Where a server of Servers leads, by its
// name or address, is judged alike, but that private addresses are dialled; what the
// portal's own configuration names is not judged.
//
// A relay that is about to stop says RelayDraining: it takes no session any more.
// For each session that it holds the server opens another elsewhere and tells both
// portals (Session with Replaces; again, to one that connects anew meanwhile); they
// move, and the SessionDone of either ends the old one. What has not moved when the
// relay's time is over ends with SessionOver (ReasonShutdown).
//
// # Opening a session
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
// Either portal of a grant may open. OpenSession has a number of its sender's,
// which the Session or Refused that answers it repeats; the other portal's
// Session has number 0. Each Session has the receiver's own leg secret, and
// nobody but the relay has both. Two portals have one session at most, but while
// one takes another's place. If both
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
// it named; to others every peer is ReasonNotGranted, without a text.
//
// A session lasts while it is used: a relay drops one for which, as long as its
// lifetime, no leg was proven and nothing was carried, and one of which no leg
// was proven, and no connection in packet mode made, in its first 30 seconds. A portal that has closed its tunnel says
// SessionDone; the server tells the other portal (SessionEnded)
// and the relay (EndSession). A server ends a session when no grant joins the
// two any more. SessionEnded ends the session's carriers, and the tunnel too if
// its reason is not a passing one (wire.Reason.Passing). A
// server that is gone ends nothing.
//
// # Without a server
//
// A Ticket is a standing session of two portals at a relay's shared ports. The
// server makes its id and both secrets from a key that it gives the relay
// (TicketKeys; package ticket), each relay its own, so no relay needs to know of it
// before a leg of it comes. Tickets end on a grid of 12 hours, 24 to 36 hours after
// they were issued, so that both portals hold the same; there are at most 3 for a pair,
// one for a relay. A relay takes them for a quarter of its sessions at most, and ends
// one where a session of the server's needs the place. A portal that has no server and no carrier to a peer with which a
// valid grant joins it waits, from a second or two on, at the relays of that peer's tickets, and there
// they meet: over TCP with the number Meeting, over UDP bound at the shared port. Leg 0, the TLS client, is
// the portal with the smaller name. What may be opened, the grants say, as ever. Portals
// also come there when a tunnel has lost its carriers and no other comes up: the server may
// not know yet that it has lost one of them.
//
// A portal keeps grants, stamp keys, removals, tickets, the list of servers and the
// addresses at which they were reached. What it reads back it checks as if it had
// just been put, and it holds until the next GrantsComplete or the end of its stamps.
//
// # Legs at the relay
//
// There are three kinds, and both legs of a carrier are of the same.
//
// TCP in splice mode (TransportSplice, TransportTLS): a portal that is to dial
// carrier N connects to the relay's session port, or to its shared port, or to
// its shared port with TLS, and sends the 64 bytes of the preface (package leg),
// by which the relay knows session, leg and N. The relay answers nothing. When
// both legs of one number are proven it joins them: what one sends after its
// preface, the other receives, and a half-close with it. A relay closes, without
// a word, what is not proven within 10 seconds; a proven leg waits 30 seconds
// for the other, one of a ticket 5 minutes. A leg that breaks resets the other: only a clean end is passed
// on as one. On the shared port a first byte of 0x16 begins TLS; a preface never
// begins so.
//
// TCP in packet mode (TransportPacket): a portal that is to dial carrier N
// connects to port packet + N mod 8 of its leg, where RelayAccess has the first
// of them. It sends nothing to prove its leg, and what it reads first was sent by
// the other portal. To the portal this is an ordinary connect, but for one thing:
// it succeeds only when the other portal dials the same number, for the relay
// answers each portal's SYN with what it read in the other's, and then only
// rewrites addresses and ports. What shows the leg is where it comes from: an
// address that the server saw, or from which the portal has proven this leg in
// another way, at ports that no other leg has for that address. Who comes from
// elsewhere is met with silence: a portal dials packet mode first and splice mode
// soon after, and takes what connects on both sides. Package leg has the
// details.
//
// UDP (TransportUDP): legs are bound with STUN as package leg says. A relay then
// sends each datagram of one leg's bound source on to the other's, unchanged, and
// keeps up to 8 for a leg that is not bound yet. A session has one bind a leg
// (connection 0); all its QUIC carriers share it. While QUIC is silent the portals hold the
// legs open with echoes (package leg). The portal binds anew, with a
// higher counter, when its network has changed or its NAT has forgotten it, and
// the carriers go on.
//
// What a session may use is the transports that its opener, the other portal (if
// it asked too) and the relay have in common. TransportPacket is among them only if
// the relay gave ports for it.
//
// # Tunnel: carriers
//
// A carrier is TLS 1.3 between the two portals over joined TCP legs, or QUIC (RFC
// 9000) over bound UDP legs; the rules for certificates are the same. Frames are
// those of package wire (type, length, stream, body). The first frame of each
// side is HELLO with version, session and the carrier's number; all three must
// be the same on both sides, or the carrier is closed. From its dial to the
// peer's HELLO a carrier has 10 seconds. A frame of an unknown type is skipped
// and counted; PAD is skipped.
//
// Over QUIC, frames of stream 0 and those of flows and probes travel on the
// control stream, the first bidirectional QUIC stream, opened by the TLS client.
// Each stream of the tunnel has a bidirectional QUIC stream of its own on a
// carrier, opened by whoever sends its first frame there (OPEN or RESUME); all its
// frames travel on that, in order. Datagrams of flows are QUIC DATAGRAMs (RFC 9221),
// cut to fit as package wire says (Fragment); until the peer has answered, the first
// 16 of a flow follow its OPEN on the control stream, which they would else overtake. An
// ACK or RESET of a stream that has no QUIC stream there travels on the control stream,
// too; DATA, FIN and RESUME never do.
//
// Portals may dial several ways for one carrier (packet mode, QUIC, splice mode),
// in any order, and handshake on each that connects. The TLS client takes the
// first on which the handshake completes, sends its HELLO there, and closes the
// others without a frame. The TLS server sends no frame before it has the client's
// HELLO, and takes the way on which that comes. So both take the same. With the
// ways of a session's first carrier, as soon as splice mode has failed and after a second
// at the latest, goes one more: number Meeting, in another mode of splice. Something on
// the way may let connections open and break, or swallow, what is not TLS to a well-known
// port.
//
// HELLO also says which tunnel its sender has with this peer, if any: the
// newest that is not over. Both portals work out a tunnel's id and its resume secret
// from the TLS exporter (RFC 8446, section 7.5; RFC 5705) of its first carrier:
//
//	binding = exporter "EXPORTER-netport-tunnel", no context, 32 bytes
//	id      = HMAC-SHA256(binding, "netport tunnel id"), the first 16 bytes
//	secret  = HMAC-SHA256(binding, "netport tunnel resume")
//	proof   = HMAC-SHA256(secret, binding of this carrier || 0 of its TLS client, 1 of its server)
//	direct  = HMAC-SHA256(secret, "netport direct"), the first 16 bytes: session of its direct carriers
//	ids     = HMAC-SHA256(secret, "netport probe id"): 8 bytes name it in probes to the TLS client of
//	          that carrier, the next 8 in those to its server
//	key     = HMAC-SHA256(secret, "netport probe key"), of probes
//
// If both name the same tunnel, and both proofs are right, the carrier belongs to
// it. Else it is the first of a new one, and what either had named is over, on
// both sides, unless it has a carrier that answers (the server asks those that are not
// silent, for 2 seconds at most, before it says HELLO): then it goes on beside the new
// one. So does one on which the peer has not said HELLO yet: nobody waits for what a peer
// says that may be waiting for the same. A wrong proof closes the carrier and
// changes nothing. A TLS client that named no tunnel does not wait for the server's
// HELLO: OPEN and DATA may follow its own at once. Nor does one whose carrier is of the tunnel
// that it names or of none, a further one or one on a direct path: it closes it when the
// server's HELLO names another, or proves nothing.
//
// Both sides dial carrier 0 on the Session message. The TLS client of a session may then
// announce one more with CARRIER on a carrier of it, numbers rising by
// one, each used once (announcements may overtake each other), and both dial it; a tunnel has 8 at most (this implementation makes up to
// 4 over TCP and one over QUIC). When two portals have lost all carriers of a session they
// dial Meeting connections and QUIC anew, and ask for another session.
//
// PING is answered by PONG with the same token. A carrier that owes or is owed
// anything is asked twice a second, an idle one every 4 minutes and 40 seconds, and every
// 15 seconds while its portal has no server and something is open in the tunnel. While bytes go
// in a tunnel that has direct carriers and others, the best of both kinds are asked once a second. One
// on which nothing comes for 1.2 seconds, or four round trips and 0.2 seconds, though a
// PING waits, is silent: its portal looks for another one, and what was on it
// moves there. So is one on which frames come, but for one and a half times as long neither
// a PONG nor an ACK. It is dead after 20 seconds in which nothing came, or 40 without an
// answer. Over QUIC, PING follows a PAD while what has filled packets is not known to have
// passed. When a carrier over TCP falls silent, or one of a session breaks, the others are
// asked at once, with PING behind a PAD; one that does not answer within 200 ms, or
// three round trips and 0.1 seconds, is silent too. A slow application is no reason.
//
// CANDIDATES says where its sender may be reached without a relay: all such places it
// has, under a number that rises. It is said again on each carrier that comes, and when
// it has changed or a carrier has gone. Whoever reads it believes nothing: it sends
// probes there, and few, to whatever may be an address of a host at all.
//
// Carriers on a direct path belong to no session of a server's: HELLO names the session that
// both work out (direct, above) and the number Meeting, and the carrier is of this tunnel or
// of none. No further one is announced there. The carriers by a relay stay; a portal that
// has something open and lost the last of them asks for another session, to have it in reserve.
// Streams and flows take
// them before those by a relay, unless a round trip on the direct path takes clearly longer, by a quarter
// and 5 ms, for 5 seconds; then they take it again when it does not for 10 seconds, or
// longer each time. Where the policy says "only" they take nothing else, wait for it,
// and are refused or reset (ReasonNotDirect) where none comes, and a portal takes
// no OPEN, RESUME or DATAGRAM by a relay; where it says "never" there is none.
//
// When the last carrier of a tunnel is gone, or all are silent, its streams wait until
// the peer was not heard for 2 minutes, unless configured otherwise; then they are reset.
//
// CLOSE is the last frame of a tunnel and says why. With ReasonIdle it is a
// question: its sender has nothing open and opens nothing more until the
// answer; a peer that has nothing open either answers with the same, and both
// close; a peer that has, goes on.
//
// # Direct ways
//
// A tunnel comes up over a relay, and for its whole life its portals look for ways that
// lead over none. Each tells the other where it may be reached (CANDIDATES, end to end):
// addresses of its interfaces with the port of its UDP socket, of the same socket as
// relays and the peer have seen it, mappings that its router has made; a new list
// whenever they change. The server learns none of them.
//
// With the list goes the name of the sender's machine, if it has one that only what runs
// there can know, for the peer alone: HMAC-SHA256 keyed by the tunnel's secret over
// "netport machine", the role in the first carrier as in HELLO and the name, cut to 16
// bytes. A portal that works out the same from its own machine's name is on that machine,
// and both name their loopback addresses too.
//
// A portal sends probes (package probe) to what the other has named, both as soon as they
// know, so that each opens its own NAT for the other: 5 within a second, then after
// pauses that double from 1 second to 5 minutes, for ever (while something direct carries
// the last is an hour); anew with a new list, when the
// network has changed, and when a way is lost. Where a probe of the peer has come
// from is asked too, at once. A way is open when a probe was answered from where it
// was sent to: the token in the answer was read there by somebody who knows the tunnel's
// key.
//
// Nothing but probes goes where no way is open, and few of those. Never probed are
// addresses that are no host's (loopback, link-local, multicast, broadcast, unspecified,
// reserved, metadata services, in whatever encoding), unless the peer is proven to run on
// the same machine and they are loopback; ports below 1024, the portal's own sockets, the addresses
// of server and relays. To an address that has never answered go 5 a second and 30 in all, and to all of
// one peer's 480, whatever it names and in whichever tunnel; one more an hour and every
// 4 minutes. All is given back when the portal's own network has changed. Answers to
// addresses that have not answered themselves are bounded too: 160, and one every 5 seconds.
//
// On an open way the TLS client of the tunnel's first carrier dials QUIC, over the same
// socket; the server takes connections from where its own probes were answered within
// the last 10 seconds, and from where one runs. Whatever else comes there, or from
// elsewhere, is dropped. While QUIC is silent the portals hold the way open with probes, as they
// do over a relay with echoes (package leg): interval and lost mean the same. When the
// client's address changes, the connection goes on from the new one once that is an
// open way; when the server's does, the client dials again. So it does, beside the connection that
// there is, before a certificate ends, and leaves that when the other carries.
//
// For TCP a portal listens on one port while it has a tunnel, dials from the same, and
// names it like the other; where relays or the server (Welcome) see it at another address, it
// names that with the port of TCP too, for many NATs leave ports as they are (where the
// server sees a proxy it does not). Both portals dial what the other
// has named, at once, and again after pauses that grow to 5
// minutes; a try counts for four probes. A connection begins with a probe that asks
// and one that answers (package probe); a portal closes, without a word, what does not
// begin so within 5 seconds. Then one that the TLS client takes becomes a carrier as any other
// over TCP, beside the one over QUIC.
//
// # Neighbours
//
// Two portals that both are to look for neighbours, and have no carrier for each other, meet on a local
// network without server, relay or ticket: while the server is away, and where a search by it
// has found nothing. What they need they work out of a grant that joins them, of
// several the one with the lowest id: HMAC-SHA256 keyed by the policy key's signature, over "netport
// grant secret"; keyed by that, over "netport lan session" (its first 16 bytes: the
// session of the carriers), "netport lan probe id", "netport lan probe key" (ids and key of probes as a
// tunnel has them) and "netport lan names". The server has all of this, too, and can prove
// to be neither portal.
//
// They find each other by DNS-SD over multicast DNS (RFC 6762, RFC 6763). The service is
// _netport._udp; the instance of a portal has for each peer another name, every day: HMAC-SHA256
// keyed by the names' key over "netport lan name", the days since 1970 as uint64 and the portal's name, cut to 16 bytes,
// in hexadecimal. A portal asks for the SRV record of the peer's, and answers for its own of
// yesterday, today and tomorrow, with the ports of its UDP sockets and its addresses at that interface. It answers
// nothing else, and is in no list: a stranger can neither ask for it nor tell from what it
// says who it is, only that somebody looks for somebody. Of what it hears it believes addresses of the same link, 16 a peer, and
// sends probes there as to any other candidate. The counter of probes is the time in
// tenths of a second at least, since their key stays, and one that is an hour behind is not taken. On a way that is open the portal with the
// smaller name dials, as on a direct way; both prove themselves by certificate, and
// grants say what may be opened, as ever.
//
// # Tunnel: streams
//
// Streams and flows share one space of numbers: odd ones are opened by the TLS
// client of the tunnel's first carrier, even ones by the other, each once in a tunnel's life. Stream 0
// is the carrier itself.
//
//	opener                                             peer, the exit
//	  | OPEN (grant, credit for the exit, client's address)|
//	  |------------------------------------------------->| admits, dials
//	  | DATA 0.. up to 64 KiB                            | holds it
//	  |------------------------------------------------->|
//	  |                        ACK (acked, limit): dialled|
//	  |<-------------------------------------------------| or RESET (reason)
//	  | DATA, ACK, FIN both ways                         |
//	  |<------------------------------------------------>|
//
// OPEN has no address to dial: the exit dials the target of the grant, and only
// if at that moment the grant is valid, names this peer (name and key) as its
// entry and this portal as its exit, and the exit's own lists and its rules for
// special addresses allow the target. An opener sends the grant whole until the
// exit is known to hold it, then its id alone; ReasonNotGranted makes it send
// the grant again the next time. An exit takes a grant that it was not put if
// it is right and its policy version is above the last GrantsComplete: the
// entry has then heard of a change first. Else it was removed.
//
// Each direction of a stream counts its bytes from 0. DATA has the offset of
// its first byte, which must be where the last one ended. ACK says how many
// bytes its sender has written out to its application, and the limit up to
// which it will take more; neither ever falls. A sender keeps what is not
// acknowledged and sends nothing beyond the limit: before the first ACK the
// opener's limit is 65,536 and the exit's stands in OPEN. An application that
// does not read stops its own stream and no other. A receiver sends an ACK when
// a quarter of its window is free again, at the latest 10 ms after it has
// written anything out. Windows begin at 256 KiB and grow with the round trip to
// 16 MiB, within the memory that the portal allows.
//
// FIN ends its sender's half, and counts as one number after the last byte: the
// ACK of offset+1 says that the application was told. The other half goes on.
// RESET ends both at once and is answered by RESET with ReasonNone, unless its
// receiver has sent one already. Who has sent its FIN and acknowledged the other's
// sends no RESET any more: the peer may have forgotten the stream. A number is
// free of frames when both FINs are acknowledged or a RESET went both ways. An application's connection that
// was cut short, on either side, ends with a TCP reset there, never with a clean
// end.
//
// A stream moves to another carrier by RESUME, which its opener sends there, with
// the next attach epoch (the first is 1) and the count of what it has received. The
// other answers with the same epoch and its own count. From then on each side
// sends on from the other's count and ignores frames of an older epoch; an ACK
// of the new one follows at once. Between its RESUME and the answer the opener sends
// nothing else of the stream. If the peer may not have heard of the stream, OPEN is said again before
// RESUME, and means nothing to who has. A side that did not open the stream, and has lost the
// carrier of it or hears nothing there, sends an ACK of it on another carrier: the opener
// moves the stream there if it is still at that epoch. RESUME, ACK or RESET of a
// number that was used and is forgotten is answered by RESET with ReasonNone and no text (which is
// never answered): it was over there, and nothing was missing but the last ACK or the
// answer to a RESET. A RESET of a number whose OPEN has not come is answered too, and
// that OPEN then means nothing. Frames of a stream that has moved may still arrive on the old
// carrier and mean nothing.
//
// A probe (OPEN of kind 3) has the exit check and dial, hang up, and say how it
// went, with RESET: ReasonNone and the address it reached, or why not.
//
// A peer that breaks these rules, with DATA beyond its limit, an ACK of what was
// not sent, a number that is not its own, closes the tunnel
// (CLOSE with ReasonProtocol), and so do 100 frames for streams that are not
// open.
//
// # Tunnel: flows
//
// OPEN of a flow has the first datagram in it; DATAGRAM has one each, in both
// directions. Datagrams keep their boundaries and sizes, 0 to 65,507 bytes. They
// are sent once or not at all: where a queue is full they are dropped and
// counted. Up to 16 of them, or 128 KiB, wait while the exit opens its socket. A
// flow is not accepted in words; it is refused, or ended, by RESET. It is bound to
// no carrier: its datagrams are taken from any, and its OPEN is said again on
// another carrier until a datagram has come back. The entry
// ends a flow that was idle for 2 minutes (RFC 4787, REQ-5); for 30 seconds if it was one
// exchange of at most 2 seconds, answered, with a target port below 1024; the exit one
// that was for 150 seconds. What ICMP says of a target that has never answered ends its flow,
// with ReasonTargetRefused or ReasonTargetUnreached; the next datagram of that client opens
// another. A target that has answered keeps flow and port. Flows take turns on a
// carrier; where its queue is full, the flow that has most in it loses its oldest. What
// has waited for half a second is dropped.
//
// # Limits
//
//	control message, body                1 to 16,384 bytes
//	tunnel frame, body                   0 to 69,632 bytes
//	application bytes in DATA            1 to 65,516
//	datagram                             0 to 65,507 bytes
//	grant, encoded                       3,072 bytes
//	endpoint                             320 bytes; a DNS name 253, a socket's path 107
//	name                                 63 bytes
//	text for people                      256 bytes; software in Hello 64
//	addresses of a relay                 16
//	candidates of a portal               16, and 16 more from which probes have come
//	probe                                71 bytes
//	probes to an address that has never  5 a second, 30, and one more an hour
//	  answered
//	the same, to all addresses of a peer 480, and one more every 4 minutes
//	                                     (at the word of neighbours as many beside)
//	answers to addresses that have       160, and one more every 5 seconds
//	  answered nothing
//	addresses that connections are       4 of a direct path, for 10 seconds after an answer
//	  expected from
//	neighbours looked for at once        64, and 16 addresses of each
//	stamp keys                           8
//	sessions named by one RelayReady     100
//	relays named by one OtherRelays,     50
//	  Relays or RelayTimes
//	servers named by Servers             16
//	ports of a leg in packet mode        8
//	offset of a stream                   2^62
//	streams and flows of one tunnel      4,096 open, and 512 that an exit is still dialling;
//	                                     more are refused (ReasonBusy)
//	certificates sent                    4; in a message 11,264 bytes together
//	authorities                          8
//	certificate request                  4,096 bytes
//	revocations held                     100,000
//	bytes queued for a control peer      16 MiB, then it is cut off
//	administration, request or answer    64 MiB
//	connections that a listener holds    1,000, and 200 of one IPv4 /24 or IPv6 /56;
//	  before they have proven themselves   the oldest is closed for a newer one
//	connection numbers of a session      1,024
//
// # Reasons
//
// Goodbye, Refused, RESET, CLOSE and others say why with a number
// (wire.Reason). 1 to 15 are about a connection or a role, 16 to 31 about what
// is allowed, 32 to 47 about the way between the portals, 48 to 63 about the
// target. Logs, the audit log and the command lines use their words.
package proto
