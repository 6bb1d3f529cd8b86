// Package overquic is what takes the place of TCP on the way to a server where a network
// shuts it: a stream of a QUIC connection (version 1, RFC 9000), with the same identities and
// protocols (package identity), as a connection, for control, enrolment and administration.
//
// It goes to the same port of UDP, is tried where TCP has not connected after a moment, and never
// through a proxy. One QUIC connection has one bidirectional stream, which the side opens that
// dials; over it goes what over TCP would follow the TLS handshake. Who has dialled has a packet
// sent after 25 seconds of silence ([KeepAlive]), for NATs; after 50 the connection is gone.
//
// A [Conn] owns its QUIC connection, and where it was dialled its UDP socket. A [Listener] owns the
// socket it was given. To whom has not shown that it is where its packets come from, a Listener
// says one thing: a Retry, which is smaller than what it answers. It begins nothing before the
// Retry's token comes back, and to all else that belongs to no connection it answers nothing.
package overquic
