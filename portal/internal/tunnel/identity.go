package tunnel

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"log/slog"

	"github.com/netport/netport/proto/wire"
)

// Identity is what makes a tunnel the same over many carriers: its name, and a
// secret that only its two portals know. Both are worked out by each of them
// from the TLS session of the first carrier (file doc.go).
type Identity struct {
	ID     wire.TunnelID
	Peer   string // name of the other portal
	secret [sha256.Size]byte
}

// NewIdentity returns the identity of a new tunnel with peer, whose first carrier
// has that binding.
func NewIdentity(peer string, binding [32]byte) Identity {
	id := mac(binding[:], []byte("netport tunnel id"))
	return Identity{ID: wire.TunnelID(id[:16]), Peer: peer, secret: mac(binding[:], []byte("netport tunnel resume"))}
}

// Proof shows on a carrier with that binding that its sender knows the tunnel's
// secret; client says which TLS role the sender has there, so that nobody can
// send back what he was sent.
func (i Identity) Proof(binding [32]byte, client bool) [32]byte {
	role := byte(1)
	if client {
		role = 0
	}
	return mac(i.secret[:], append(binding[:], role))
}

// Proves reports whether proof is that of the side with the TLS role client.
func (i Identity) Proves(binding [32]byte, client bool, proof [32]byte) bool {
	want := i.Proof(binding, client)
	return hmac.Equal(want[:], proof[:])
}

// Probe returns what shows outside of any carrier that a packet belongs to the
// tunnel (package probe): an id for packets to the TLS client of its first carrier
// and another for those to the server, so that none can be sent back, and the key
// of their MACs.
func (i Identity) Probe() (toClient, toServer [8]byte, key [32]byte) {
	ids := mac(i.secret[:], []byte("netport probe id"))
	return [8]byte(ids[:8]), [8]byte(ids[8:16]), mac(i.secret[:], []byte("netport probe key"))
}

// Direct returns the session of the tunnel's direct carriers: no server has
// announced one.
func (i Identity) Direct() wire.SessionID {
	id := mac(i.secret[:], []byte("netport direct"))
	return wire.SessionID(id[:16])
}

// Machine returns what the portal with the TLS role client on the tunnel's first carrier
// says in CANDIDATES of the machine that it runs on, by its name (network.Machine): the
// other knows whether it has the same name, and nobody learns it. It is zero where the
// name is not known.
func (i Identity) Machine(name string, client bool) (said [16]byte) {
	if name == "" {
		return said
	}
	role := byte(1)
	if client {
		role = 0
	}
	named := mac(i.secret[:], append([]byte("netport machine"), append([]byte{role}, name...)...))
	copy(said[:], named[:])
	return said
}

// Format implements fmt.Formatter: the secret is never printed.
func (i Identity) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "tunnel %v with %s", i.ID, i.Peer) }

// LogValue implements slog.LogValuer.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.ID.String()) }

func mac(key, message []byte) [32]byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return [32]byte(h.Sum(nil))
}
