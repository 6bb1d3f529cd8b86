// Package wire is the layout of every message of the control and enrolment protocols, and of every
// frame of the tunnel protocol, byte by byte, and the code that reads and writes them. Who says
// what when, the packages say that speak the protocols; package proto lists them, and says what
// numbers, blobs, counts and addresses look like.
//
// A control message has a header of 6 bytes, in TLS, and a body of 1 to 16,384 bytes
// ([MaxControl]):
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	|             type              |         length of the         |
//	+---------------+---------------+---------------+---------------+
//	|             body              |
//	+---------------+---------------+
//
// A frame has a header of 8 bytes, in a carrier, and a body of up to 69,632 bytes ([MaxFrame]):
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	|     type      |             length of the body                |
//	+---------------+---------------+---------------+---------------+
//	|                          stream                               |
//	+---------------+---------------+---------------+---------------+
//
// A body that is not exactly its fields closes the connection. The types of messages are told apart
// by direction ([FromPortal], [ToPortal], [FromRelay], [ToRelay]), so that nobody can send what it
// should only receive.
package wire
