// Package identity says who is who: names, the identities in certificates,
// the TLS configuration of every connection, and the key files.
//
// Every connection but the bare legs at relays is TLS 1.3 with a certificate on
// both sides. A leaf has exactly one subject alternative name, a URI in SPIFFE form:
//
//	spiffe://DOMAIN/ROLE/NAME      ROLE is portal, server, relay or admin
//
// It must be of the receiver's own domain, within its validity by the
// receiver's clock, no CA, under a CA that the receiver trusts, not revoked, nor
// anything above it, with at most 4 certificates sent ([MaxChain]). Of several chains that can be
// built one that is right is enough. Its extended key usages must name the side it is used
// on (client or server authentication) and must not be "any". Keys are ECDSA on
// P-256 or P-384, Ed25519, or RSA of 2,048 to 4,096 bits. Common names and DNS names
// are never looked at. There are no session tickets and no early data, so every connection is
// checked anew. The name in clear (SNI) says nothing.
//
// The application protocol (ALPN) says what is spoken, and the role of a certificate which
// side of it may be played. A peer without the protocol of the connection, or with any other, is
// refused in the handshake.
//
//	connection          ALPN               who dials           peers
//	control             netport-control/1  portal, relay       role portal or relay; role server
//	enrolment           netport-enrol/1    who has no valid    none, or a portal's, relay's or admin's
//	                                       certificate         that may have expired; role server
//	administration      netport-admin/1    an operator         role admin; role server
//	carrier             netport-tunnel/1   leg 0 is the        role portal, the name in Session
//	                                       TLS client
//	leg on a relay's    netport-relay/1    portal              role portal; role relay, the name in
//	port, inside TLS                                           Session
//
// A permission (package grant) names a portal by its name and its key: the
// entry checks the exit's key, and the exit the entry's, against the grant
// before anything is opened under it. Who is refused for its certificate gets
// the alert bad_certificate, whatever was wrong.
package identity
