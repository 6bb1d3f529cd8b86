// Package grant holds grants: one forward for one entry and one exit portal,
// under two signatures.
//
//   - The permission names both ends exactly: portal, public key and endpoint
//     on the entry side, portal, public key and endpoint on the exit side. The
//     policy key (Ed25519) signs it. It lives as long as the policy has it.
//   - The stamp says that a server still vouches for the permission, for a day.
//     A server's stamp key (Ed25519) signs it.
//
// A portal uses a grant while both signatures are right, by the policy key it
// was enrolled with and by a stamp key of the last Welcome, while neither
// the stamp nor the permission has ended, and in its hours only. A stamp lasts 24 hours and is dated
// back one; a portal takes none that lasts longer than 7 days. So a server alone cannot grant, what
// it no longer stamps ends by itself, and a portal that has lost its server goes on for up to a day.
//
// On the wire a permission is
//
//	version  uint64    policy version that first had it
//	forward  blob      name of the forward, at most 63 bytes
//	entry    blob      name of the entry portal, at most 63 bytes
//	key      [32]byte  SHA-256 of its SubjectPublicKeyInfo
//	listen   blob      endpoint URI, at most 320 bytes
//	exit     blob      name of the exit portal
//	key      [32]byte
//	target   blob      endpoint URI
//	end      uint64    Unix time in seconds; 0: the policy sets no end
//	proxy    uint8     PROXY protocol towards the target: 0 none, 1, 2
//	rank     uint8     among the targets of one listener: 0 is tried first
//	direct   uint8     paths: 0 any, 1 only direct ones, 2 never direct ones
//	rate     uint64    bytes a second, each way, of all streams and flows of
//	                   the grant together; 0 no limit
//	streams  uint32    streams or flows at the same time; 0 no limit
//	month    uint64    bytes both ways in a calendar month of UTC; 0 no limit
//	clients  uint16    number of prefixes, 0 (all clients) to 64; of each
//	                   address (length uint8, 4 or 16, then the bytes) and
//	                   bits uint8; ascending
//	zone     blob      POSIX TZ rule, at most 64 bytes; empty without windows
//	hours    uint16    number of windows, 0 (always) to 64; of each
//	                   days uint8 (bit 0 is Monday), from uint16 and until
//	                   uint16 in minutes of the day; ascending
//
// and a grant is
//
//	permission blob
//	signature  [64]byte   Ed25519 over "netport-permission/2\x00" + permission
//	from       uint64     Unix time in seconds
//	until      uint64     Unix time in seconds
//	signature  [64]byte   Ed25519 over "netport-stamp/1\x00" + SHA-256(permission) + from + until
//
// (a blob is a 16-bit length and its bytes; numbers are big endian). Endpoints
// are compared byte for byte in their one canonical form. A grant has at most 3,072 bytes
// ([wire.MaxGrant]).
//
// # How grants come and go
//
// After Welcome the server sends a portal every grant that concerns it
// ([wire.PutGrant]), as entry or as exit, then [wire.GrantsComplete] with the version of the
// policy, then [wire.PeerState] for each portal it shares a grant with, and [wire.RelayState]
// if it has a relay that could hold a session.
//
//   - What a portal holds from an earlier connection stays valid until
//     GrantsComplete; what was not put again is then gone.
//   - A change of policy is [wire.RemoveGrant] for what is taken back, to exits before
//     entries; PutGrant for what is new; and GrantsComplete to all concerned.
//     What runs under a removed grant is cut at the next GrantsComplete, or a
//     second after the removal, unless another grant joins the same pair of
//     ends in the same way ([Permission.SamePair]).
//   - A grant is put again with a fresh stamp when half the life of its stamp
//     is over.
//   - With the grants come the Tickets for the time without a server, the Servers of
//     the domain, and its Relays.
//   - PeerState follows every change of a peer's connection to the server, and
//     RelayState the coming of the first relay and the going of the last.
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
// # Which key, and which terms
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
package grant
