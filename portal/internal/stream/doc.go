// Package stream is one forwarded connection as the two portals count it: no
// sockets, no goroutines, no clock. Everything that happens to a stream is a
// method call here, and what is to be sent comes out as frames.
//
// A stream has two halves. The sending half keeps every segment until the far
// portal has acknowledged it, so that a stream can go on over another carrier.
// The receiving half takes bytes strictly in order, and says in one ACK what it
// has written out to its application and how much more it will take: the
// acknowledgement is the window's credit.
//
//	            Append            Next                Ack
//	application ------> [ kept ] ------> carrier ... ------> forgotten
//
//	                   Receive, Queue            Wrote out
//	carrier ... DATA -----------------> [ queue ] -------> application
//
// A Stream is owned by one lock of its owner's: no method may run beside
// another.
//
// # Opening
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
// Odd numbers are opened by the TLS client of the tunnel's first carrier, even ones by the other,
// each once in a tunnel's life; flows have numbers of the same space. Stream 0 is the carrier
// itself.
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
// A probe (OPEN of kind 3, [wire.OpenProbe]) has the exit check and dial, hang up, and say how it
// went, with RESET: ReasonNone and the address it reached, or why not.
//
// # Bytes
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
// 16 MiB, within the memory that the portal allows. No offset is above 2^62.
//
// # The end
//
// FIN ends its sender's half, and counts as one number after the last byte: the
// ACK of offset+1 says that the application was told. The other half goes on.
// RESET ends both at once and is answered by RESET with ReasonNone, unless its
// receiver has sent one already. Who has sent its FIN and acknowledged the other's
// sends no RESET any more: the peer may have forgotten the stream. A number is
// free of frames, and may be forgotten, when both FINs are acknowledged or a RESET went both
// ways. An application's connection that was cut short, on either side, ends with a TCP reset
// there, never with a clean end.
//
// # Over another carrier
//
// A stream moves to another carrier by RESUME, which its opener sends there, with
// the next attach epoch (the first is 1) and the count of what it has received. The
// other answers with the same epoch and its own count. From then on each side
// sends on from the other's count and ignores frames of an older epoch; an ACK
// of the new one follows at once. Between its RESUME and the answer the opener sends
// nothing else of the stream. If the peer may not have heard of the stream, OPEN is said again
// before RESUME, and means nothing to who has. A side that did not open the stream, and has lost
// the carrier of it or hears nothing there, sends an ACK of it on another carrier: the opener
// moves the stream there if it is still at that epoch. Frames of a stream that has moved may still
// arrive on the old carrier and mean nothing.
//
// RESUME, ACK or RESET of a number that was used and is forgotten is answered by RESET with
// ReasonNone and no text (which is never answered): it was over there, and nothing was missing but
// the last ACK or the answer to a RESET. A RESET of a number whose OPEN has not come is answered
// too, and that OPEN then means nothing.
//
// # Mistakes
//
// A peer that breaks these rules, with DATA beyond its limit, an ACK of what was
// not sent, a number that is not its own, closes the tunnel
// (CLOSE with ReasonProtocol), and so do 100 frames for streams that are not
// open.
package stream
