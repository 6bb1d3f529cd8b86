// Package lan finds other portals on the local network while no server tells where they
// are: by DNS-SD over multicast DNS (RFC 6762, RFC 6763), beside whoever else speaks that on
// the machine. It finds addresses and proves nothing: what it has heard is probed (package
// path/direct) before anything else is sent there.
//
//	message.go  packets
//	socket.go   interfaces and sockets
//	lan.go      who is looked for, when is asked, what is believed
//
// # When, and by what secret
//
// Two portals that both are to look for neighbours, and have no carrier for each other, meet on a
// local network without server, relay or ticket: while the server is away, and where a search by it
// has found nothing. What they need they work out of a grant that joins them, of
// several the one with the lowest id: HMAC-SHA256 keyed by the policy key's signature, over "netport
// grant secret"; keyed by that, over "netport lan session" (its first 16 bytes: the
// session of the carriers), "netport lan probe id", "netport lan probe key" (ids and key of probes as
// a tunnel has them) and "netport lan names". The server has all of this, too, and can prove
// to be neither portal.
//
// # Names
//
// The service is _netport._udp; the instance of a portal has for each peer another name, every
// day: HMAC-SHA256 keyed by the names' key over "netport lan name", the days since 1970 as uint64
// and the portal's name, cut to 16 bytes, in hexadecimal. A portal asks for the SRV record of the
// peer's, of 64 peers at once at most, and answers for its own of yesterday, today and tomorrow,
// with the ports of its UDP sockets and its addresses at that interface. It answers nothing else,
// and is in no list: a stranger can neither ask for it nor tell from what it says who it is, only
// that somebody looks for somebody. While it looks for nobody, it neither asks nor answers.
//
// # What is believed
//
// Of what it hears a portal believes addresses of the same link, 16 a peer, and sends probes there
// as to any other candidate. The counter of probes is the time in tenths of a second at least,
// since their key stays, and one that is an hour behind is not taken. On a way that is open the
// portal with the smaller name dials, as on a direct way; both prove themselves by certificate, and
// grants say what may be opened, as ever.
package lan
