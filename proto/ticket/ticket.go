package ticket

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/netport/netport/proto/wire"
)

// mark begins the id of a ticket's session. A random id begins so once
// in 2^32; it stands for itself as long as its relay knows it.
const mark = "NPT\x01"

// Session returns the id of the standing session of two portals that is
// made with key and ends at that time, cut to whole seconds:
//
//	mark [4]byte   "NPT" and the version, 1
//	ends uint32    Unix time in seconds
//	pair [8]byte   MAC over ends and both names, keyed by the ticket key, cut
//
// The smaller name has leg 0.
func Session(key wire.Secret, a, b string, ends time.Time) (id wire.SessionID) {
	if b < a {
		a, b = b, a
	}
	copy(id[:], mark)
	binary.BigEndian.PutUint32(id[4:], uint32(ends.Unix()))
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte("netport ticket\x00"))
	h.Write(id[4:8])
	h.Write(wire.AppendBlob(wire.AppendBlob(nil, []byte(a)), []byte(b)))
	copy(id[8:], h.Sum(nil))
	return id
}

// Ends returns the end of a ticket by the id of its session, and whether
// it is one.
func Ends(id wire.SessionID) (time.Time, bool) {
	if string(id[:4]) != mark {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint32(id[4:])), 0), true
}

// Secret returns the secret of one leg of a ticket's session: the server
// that issued it and the relay that has the key work out the same, so a relay
// needs to be told of no ticket. Whoever proves a leg with it was given it.
func Secret(key wire.Secret, id wire.SessionID, leg uint8) (secret wire.Secret) {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte("netport ticket leg\x00"))
	h.Write(id[:])
	h.Write([]byte{leg})
	copy(secret[:], h.Sum(nil))
	return secret
}
