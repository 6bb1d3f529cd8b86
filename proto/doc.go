// Package proto is the protocol of Netport: what portals, servers and relays
// say to each other. This page says which protocols there are, and what is common
// to them. Each is specified in the package that speaks it, and the layout of every
// message, byte by byte, in [github.com/netport/netport/proto/wire].
//
//	protocol          who dials whom            over                               package
//	control           portal or relay, server   TCP or QUIC                        control
//	enrolment         anybody, server           TCP or QUIC                        enrol
//	administration    operator, server          TCP or QUIC, or a Unix socket      local
//	leg of a session  portal, relay             TCP, TLS or UDP                    leg
//	tunnel            portal, portal            TLS or QUIC, over legs or direct   (below)
//	probe             portal, portal            UDP or TCP                         probe
//
// What the packages hold:
//
//   - [github.com/netport/netport/proto/identity]: names, certificates, TLS; which role may be which
//     side of which protocol
//   - [github.com/netport/netport/proto/control]: one connection to the server: greeting,
//     keepalive, relays, sessions
//   - [github.com/netport/netport/proto/grant]: what a portal may do, under two signatures, and
//     how it comes and goes
//   - [github.com/netport/netport/proto/endpoint]: the URIs that say where a forward listens and
//     what it dials
//   - [github.com/netport/netport/proto/leg]: how portals prove their legs to a relay, and what it
//     joins
//   - [github.com/netport/netport/proto/ticket]: the sessions in which portals meet without a
//     server
//   - [github.com/netport/netport/proto/probe]: how portals find ways that lead over no relay
//   - [github.com/netport/netport/proto/invite] and [github.com/netport/netport/proto/enrol]: the
//     join token, and enrolment
//   - [github.com/netport/netport/proto/keeper]: new certificates, authorities, revocations
//   - [github.com/netport/netport/proto/clock]: the time, on devices that may not know it
//   - [github.com/netport/netport/proto/overquic]: QUIC in the place of TCP, where that is shut
//   - [github.com/netport/netport/proto/handover]: one TCP port for a server and a relay
//   - [github.com/netport/netport/proto/gate]: bounds on connections that have not proven
//     themselves
//   - [github.com/netport/netport/proto/local]: the requests of a command line to a daemon
//
// What two portals say to each other in a tunnel is said where the portal does it: in
// portal/internal the packages meeting (which tunnel a carrier is of), carrier (frames over TLS and
// QUIC), stream, tunnel (flows, and its end), path/direct (ways that lead over no relay) and lan
// (neighbours).
//
// The packages that are not named are no part of the protocol: they are what daemons need on their
// machine.
//
// # Words
//
// A portal is the daemon of one end. A forward joins a listener on its entry
// portal with a target that its exit portal dials; a portal can be both. A
// grant is one forward for one entry and one exit, signed. A session is a
// meeting of two portals at a relay, brokered by the server; each portal has
// one leg of it, 0 or 1. A carrier is one connection between the two portals,
// over a relay or direct; a tunnel is what two portals have in common: carriers, of one
// session or of several, and over them streams (a forwarded connection each) and
// flows (a forwarded UDP association each). Carriers and sessions come and go; the
// tunnel and its streams stay.
//
// # Conventions
//
// Numbers are big endian. A blob is a 16-bit length and its bytes. A text is a
// blob of valid UTF-8, at most 256 bytes, for people: nobody acts on it. A count is a 16-bit
// number of elements that follow. An address is one byte of length (0, 4 or
// 16) and its bytes; IPv4 is never written as IPv4-mapped IPv6. Times are Unix
// seconds, and none is later than the year 9999. Names are 1 to 63 bytes of a-z,
// 0-9, '.' and '-' that begin and end with a letter or digit, and are compared
// byte for byte. MACs are HMAC-SHA256 (RFC 2104, RFC 6234).
//
// Every value has one encoding. A receiver refuses a message that is cut,
// has bytes left over, or holds a value its field does not allow; it
// checks every length and count against its limit, and against the bytes that
// are there, before it allocates. Limits stand beside what they bound.
//
// # Versions
//
// Within a version of a protocol nothing in a message ever changes: a new field is a new
// type of message. A type that the receiver does not know is skipped and counted. A
// transport bit that it does not know is ignored; a reason that it does not know is a
// reason all the same.
//
// # Reasons
//
// Goodbye, Refused, RESET, CLOSE and others say why with a number, a Reason of package
// wire. 1 to 15 are about a connection or a role, 16 to 31 about what
// is allowed, 32 to 47 about the way between the portals, 48 to 63 about the
// target. Logs, the audit log and the command lines use their words.
package proto
