package state

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/wire"
)

// Kept is what a portal keeps for the next time it is started.
type Kept struct {
	Grants   Grants
	Tickets  []wire.Ticket
	Servers  []string       // that a server has told of
	Hosts    []control.Host // addresses at which servers with names were reached
	Networks []Network      // the one used last first
}

// Grants is what a portal was granted, as the server has said it: every word of
// it is checked again when it is used.
type Grants struct {
	Stamp []ed25519.PublicKey // keys of the server connected last
	// Completed is the policy version of which every grant was here; Known says
	// that there was one.
	Completed wire.GrantsComplete
	Known     bool
	Held      [][]byte       // grants, signed and stamped
	Removed   []wire.GrantID // taken back, not of earlier versions than Completed
}

// Network is what was learned of one network about connections that carry
// nothing, and how a server was reached last.
type Network struct {
	Name    string
	Silence control.Learned
	Way     control.Way // zero: none was reached
}

const (
	maxGrants   = 16384
	maxTickets  = 3 * 4096
	maxHosts    = 16
	maxNetworks = 64
	maxName     = 255 // of a host or a network, in bytes
	maxAddress  = 300 // of a server, "host:port"
	// maxFile is well above what the largest numbers of all make.
	maxFile = 64 << 20
)

// magic begins a file; its last byte is the version of what follows:
//
//	messages   as on a control connection, each with type and length
//	sum        [32]byte   SHA-256 of all before it
//
// Messages are those of the server, and two of the file's own. A type that the
// reader does not know is skipped.
const magic = "NPstate\x02"

// The types of the file's own messages; no message of a connection has a type
// above 0x7fff.
const (
	typeHosts    wire.Type = 0x8001 // count: name blob, addresses count
	typeNetworks wire.Type = 0x8002 // count: name blob, held, broken uint64 in ns, at uint64 in Unix seconds
	typeWays     wire.Type = 0x8003 // of the networks before, as many and in their order: address blob, UDP bool
)

var (
	errCut     = errors.New("it is cut or was altered")
	errForeign = errors.New("it is no file of this program")
)

// message is a message of the file's own.
type message struct {
	kind wire.Type
	body []byte
}

func (m message) Type() wire.Type          { return m.kind }
func (m message) AppendTo(b []byte) []byte { return append(b, m.body...) }

// encode returns the file of k. What is above a limit is left out.
func encode(k Kept) []byte {
	b := []byte(magic)
	if len(k.Grants.Stamp) > 0 {
		b = wire.AppendMessage(b, wire.Welcome{Version: wire.ControlVersion, Stamp: k.Grants.Stamp})
	}
	for _, g := range k.Grants.Held[:min(len(k.Grants.Held), maxGrants)] {
		b = wire.AppendMessage(b, wire.PutGrant{Grant: g})
	}
	if k.Grants.Known {
		b = wire.AppendMessage(b, k.Grants.Completed)
	}
	for _, id := range k.Grants.Removed[:min(len(k.Grants.Removed), maxGrants)] {
		b = wire.AppendMessage(b, wire.RemoveGrant{Grant: id})
	}
	for _, t := range k.Tickets[:min(len(k.Tickets), maxTickets)] {
		b = wire.AppendMessage(b, t)
	}
	if len(k.Servers) > 0 {
		b = wire.AppendMessage(b, wire.Servers{Addresses: k.Servers})
	}
	if hosts := k.Hosts[:min(len(k.Hosts), maxHosts)]; len(hosts) > 0 {
		body := binary.BigEndian.AppendUint16(nil, uint16(len(hosts)))
		for _, h := range hosts {
			body = wire.AppendText(body, h.Name, maxName)
			addrs := h.Addrs[:min(len(h.Addrs), wire.MaxCandidates)]
			body = binary.BigEndian.AppendUint16(body, uint16(len(addrs)))
			for _, a := range addrs {
				body = wire.AppendAddr(body, a)
			}
		}
		b = wire.AppendMessage(b, message{typeHosts, body})
	}
	if networks := k.Networks[:min(len(k.Networks), maxNetworks)]; len(networks) > 0 {
		body := binary.BigEndian.AppendUint16(nil, uint16(len(networks)))
		for _, n := range networks {
			body = wire.AppendText(body, n.Name, maxName)
			body = binary.BigEndian.AppendUint64(body, uint64(n.Silence.Held))
			body = binary.BigEndian.AppendUint64(body, uint64(n.Silence.Broken))
			var at uint64
			if !n.Silence.At.IsZero() {
				at = uint64(n.Silence.At.Unix())
			}
			body = binary.BigEndian.AppendUint64(body, at)
		}
		b = wire.AppendMessage(b, message{typeNetworks, body})
		body = binary.BigEndian.AppendUint16(nil, uint16(len(networks)))
		for _, n := range networks {
			body = wire.AppendBool(wire.AppendText(body, n.Way.Address, maxAddress), n.Way.UDP)
		}
		b = wire.AppendMessage(b, message{typeWays, body})
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decode reads a file. It returns all of it or an error.
func decode(b []byte) (Kept, error) {
	switch {
	case len(b) >= len(magic) && !bytes.HasPrefix(b, []byte(magic[:len(magic)-1])):
		return Kept{}, errForeign
	case len(b) < len(magic)+sha256.Size:
		return Kept{}, errCut
	}
	rest, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := sha256.Sum256(rest); !bytes.Equal(sum, want[:]) {
		return Kept{}, errCut
	}
	if v := rest[len(magic)-1]; v != magic[len(magic)-1] {
		return Kept{}, fmt.Errorf("it is of version %d, this program reads version %d", v, magic[len(magic)-1])
	}
	return parse(rest[len(magic):])
}

// parse reads the messages of a file.
func parse(b []byte) (Kept, error) {
	var k Kept
	for len(b) > 0 {
		if len(b) < wire.ControlHeaderLen {
			return Kept{}, errCut
		}
		t, n, err := wire.ParseControlHeader(b[:wire.ControlHeaderLen])
		if b = b[wire.ControlHeaderLen:]; err == nil && n > len(b) {
			err = errCut
		}
		if err == nil {
			err = k.take(t, b[:n])
		}
		if err != nil {
			return Kept{}, fmt.Errorf("message of type %d: %w", t, err)
		}
		b = b[n:]
	}
	return k, nil
}

// take reads one message.
func (k *Kept) take(t wire.Type, body []byte) error {
	switch t {
	case typeHosts:
		return k.takeHosts(body)
	case typeNetworks:
		return k.takeNetworks(body)
	case typeWays:
		return k.takeWays(body)
	}
	m, err := wire.ParseToPortal(t, body)
	switch {
	case errors.Is(err, wire.ErrUnknownType):
		return nil
	case err != nil:
		return err
	case len(k.Grants.Held) >= maxGrants || len(k.Grants.Removed) >= maxGrants || len(k.Tickets) >= maxTickets:
		return errors.New("there are more than a portal keeps")
	}
	switch m := m.(type) {
	case wire.Welcome:
		k.Grants.Stamp = m.Stamp
	case wire.PutGrant:
		k.Grants.Held = append(k.Grants.Held, m.Grant)
	case wire.GrantsComplete:
		k.Grants.Completed, k.Grants.Known = m, true
	case wire.RemoveGrant:
		k.Grants.Removed = append(k.Grants.Removed, m.Grant)
	case wire.Ticket:
		k.Tickets = append(k.Tickets, m)
	case wire.Servers:
		k.Servers = m.Addresses
	default:
		return errors.New("it does not belong here")
	}
	return nil
}

func (k *Kept) takeHosts(body []byte) error {
	r := wire.NewReader(body)
	for range r.Count(maxHosts, 2+2) {
		h := control.Host{Name: r.Text(maxName)}
		for range r.Count(wire.MaxCandidates, 5) {
			a := r.Addr()
			if !a.IsValid() {
				r.Reject()
			}
			h.Addrs = append(h.Addrs, a)
		}
		if h.Name == "" || len(h.Addrs) == 0 {
			r.Reject()
		}
		k.Hosts = append(k.Hosts, h)
	}
	return r.Done()
}

func (k *Kept) takeNetworks(body []byte) error {
	r := wire.NewReader(body)
	for range r.Count(maxNetworks, 2+3*8) {
		n := Network{Name: r.Text(maxName)}
		n.Silence.Held, n.Silence.Broken = time.Duration(r.Uint64()), time.Duration(r.Uint64())
		if at := r.Uint64(); at != 0 {
			n.Silence.At = time.Unix(int64(at), 0)
		}
		k.Networks = append(k.Networks, n)
	}
	return r.Done()
}

func (k *Kept) takeWays(body []byte) error {
	r := wire.NewReader(body)
	n := r.Count(maxNetworks, 2+1)
	if n != len(k.Networks) {
		r.Reject()
	}
	for i := range min(n, len(k.Networks)) {
		k.Networks[i].Way.Address = r.Text(maxAddress)
		k.Networks[i].Way.UDP = r.Bool()
	}
	return r.Done()
}
