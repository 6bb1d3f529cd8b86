// Package enrol is the enrolment protocol on the side of who has no certificate
// that is valid: with a join token it gets its first one, and with one that has
// expired its next. Nothing of it touches a file.
//
// Who is to become a portal, relay or admin gets a token (package [invite]) out of band: role,
// name, the servers, the fingerprint of the authority above their certificates, the
// policy key, an id and a secret. It makes a key and connects with [identity.ProtocolEnrol], to the
// ports of the control protocol. The server's chain ends with its root. Who joins finds the
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
// TLS and [wire.Enrol] together have 10 seconds; a server that is silent for 75 is gone. The
// policy key of the token must be in [wire.Enrolled] and have signed [wire.Authorities], and is pinned
// from then on. Each attempt is a connection of its own. A token is good for one key until its
// end: the same key may ask again at any time, and gets its certificate again; while an operator
// has to sign that elsewhere, for 30 days from when it asked last. Every token that is not good
// is refused in the same words.
//
// Without a token the same exchange renews the certificate that was presented in the
// handshake, for as long after its end as the server allows, unless it was revoked or
// its key is no longer the name's.
package enrol
