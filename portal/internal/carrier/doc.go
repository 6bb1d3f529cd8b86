// Package carrier moves frames (package [wire]) between two proven portals over one connection:
// streams in fair turns, datagrams that are never queued behind them, and a
// PING that tells a dead connection from a silent one. A carrier knows nothing
// of resuming, of grants or of applications; the tunnel above it owns the
// streams and is called for every frame.
//
// There are two kinds, and the rules for certificates are the same: TLS 1.3 over TCP
// ([OverTCP]), and QUIC (RFC 9000; [OverQUIC]). A frame of an unknown type is skipped and counted;
// PAD is skipped.
//
// # Over QUIC
//
// Frames of stream 0 and those of flows and probes travel on the
// control stream, the first bidirectional QUIC stream, opened by the TLS client.
// Each stream of the tunnel has a bidirectional QUIC stream of its own on a
// carrier, opened by whoever sends its first frame there (OPEN or RESUME); all its
// frames travel on that, in order. Datagrams of flows are QUIC DATAGRAMs (RFC 9221),
// cut to fit ([wire.Fragment]); until the peer has answered, the first
// 16 of a flow follow its OPEN on the control stream, which they would else overtake. An
// ACK or RESET of a stream that has no QUIC stream there travels on the control stream,
// too; DATA, FIN and RESUME never do.
//
// # Silence
//
// PING is answered by PONG with the same token. A carrier that owes or is owed
// anything is asked twice a second, an idle one every 4 minutes and 40 seconds, and every
// 15 seconds while its portal has no server and something is open in the tunnel. While bytes go
// in a tunnel that has direct carriers and others, the best of both kinds are asked once a second.
//
// One on which nothing comes for 1.2 seconds, or four round trips and 0.2 seconds, though a
// PING waits, is silent: its portal looks for another one, and what was on it
// moves there. So is one on which frames come, but for one and a half times as long neither
// a PONG nor an ACK. It is dead after 20 seconds in which nothing came, or 40 without an
// answer. Over QUIC, PING follows a PAD while what has filled packets is not known to have
// passed. When a carrier over TCP falls silent, or one of a session breaks, the others are
// asked at once, with PING behind a PAD; one that does not answer within 200 ms, or
// three round trips and 0.1 seconds, is silent too. A slow application is no reason.
package carrier
