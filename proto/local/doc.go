// Package local is the requests of a command line to a daemon: over the Unix socket of a
// daemon on this machine, and over TLS to a server elsewhere.
//
// A caller sends one request, the name of a command and its arguments as JSON,
// and gets one answer: a result as JSON, or an error of one line. A command
// registered with HandleStream goes on after its answer as a plain stream of
// bytes in both directions. Requests and answers are framed like control
// messages (type uint16, length uint32, body), and have at most 64 MiB each.
//
// No caller waits for ever for a daemon that is stopped or hangs: a daemon that works on
// a command gives a sign of life every 3 seconds, an empty frame, for a minute unless the
// command may take longer. A caller gives up after 10 seconds without the first one, after 2 minutes
// over a network, and after a minute without the next.
//
// # The socket
//
// The socket is for its owner alone: mode 0600, and where the system can tell
// who calls, only the daemon's user and root are served. A lock beside it
// keeps a second daemon out; a socket left by a dead daemon is replaced, any
// other file at its path is not.
//
// # Administration
//
// The same requests can come over any other connection whose other side has proven
// itself: Answer serves one, and CallOver asks one. Handlers learn who asks ([CallerOf]).
// So an operator's command asks a server from another machine over TLS (netport-admin/1), as an
// admin: one request and one answer a connection. The certificate of an admin is good for a TLS
// client alone, and its key must be the one that is enrolled under its name. Each connection, and
// what it has asked for as long as that is not done, ends when the admin is revoked. An admin
// signs nothing. It renews its certificate over the enrolment protocol, with the one it has.
package local
