package leg

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/netport/netport/proto/wire"
)

// PacketPorts is how many ports a leg has in packet mode. Connection n uses port
// first + n % PacketPorts.
const PacketPorts = wire.PacketPorts

// ID names one connection of one leg of a session.
type ID struct {
	Session    wire.SessionID
	Leg        uint8 // 0 or 1
	Connection uint16
}

// Other returns the ID of the connection that this one is joined with.
func (id ID) Other() ID {
	id.Leg ^= 1
	return id
}

// String returns the leg for people, with the session shortened.
func (id ID) String() string {
	return fmt.Sprintf("%v:%d:%d", id.Session, id.Leg, id.Connection)
}

// usernameLen is the length of an ID as the USERNAME of a bind.
const usernameLen = 32 + 1 + 1 + 1 + 5

func (id ID) username() []byte {
	return fmt.Appendf(nil, "%x:%d:%05d", id.Session[:], id.Leg, id.Connection)
}

// parseUsername takes exactly what username makes: an ID has one text.
func parseUsername(b []byte) (ID, bool) {
	if len(b) != usernameLen || b[32] != ':' || b[34] != ':' || b[33] != '0' && b[33] != '1' {
		return ID{}, false
	}
	id := ID{Leg: b[33] - '0'}
	for _, c := range b[:32] {
		if c >= 'A' && c <= 'F' {
			return ID{}, false
		}
	}
	if _, err := hex.Decode(id.Session[:], b[:32]); err != nil {
		return ID{}, false
	}
	for _, c := range b[35:] {
		if c < '0' || c > '9' {
			return ID{}, false
		}
	}
	n, err := strconv.ParseUint(string(b[35:]), 10, 16)
	if err != nil {
		return ID{}, false
	}
	id.Connection = uint16(n)
	return id, true
}
