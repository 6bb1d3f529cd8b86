package grant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/wire"
)

// MaxClients is the most prefixes of client addresses in a permission.
const MaxClients = 64

// MaxBytes is the highest rate, in bytes a second, and the largest volume of a
// month, in bytes. Sums of two do not overflow.
const MaxBytes = 1 << 60

// Terms are the conditions of a permission beside its ends. The zero Terms set
// none.
type Terms struct {
	Direct  Direct
	Rate    uint64  // bytes a second, each way, of all streams and flows of the grant together; 0: no limit
	Streams uint32  // streams or flows at the same time; 0: no limit
	Month   uint64  // bytes, both ways together, in a calendar month of UTC; 0: no limit
	Clients Clients // who may connect to the listener
	Hours   Hours   // when the grant holds
}

// Direct says which paths between the two portals may carry the grant.
type Direct uint8

// The ways to choose paths.
const (
	DirectAny   Direct = 0 // relayed or direct
	DirectOnly  Direct = 1 // never by a relay
	DirectNever Direct = 2 // only by a relay
)

func (d Direct) String() string {
	switch d {
	case DirectAny:
		return "any"
	case DirectOnly:
		return "only"
	case DirectNever:
		return "never"
	}
	return fmt.Sprintf("direct %d", uint8(d))
}

func (t Terms) check(listen endpoint.Endpoint) error {
	if t.Direct > DirectNever {
		return fmt.Errorf("%v is no way to choose paths", t.Direct)
	}
	if t.Rate > MaxBytes || t.Month > MaxBytes {
		return fmt.Errorf("a limit of more than %d bytes", uint64(MaxBytes))
	}
	if s := listen.Scheme(); !t.Clients.IsZero() && s != endpoint.TCP && s != endpoint.UDP {
		return fmt.Errorf("client addresses for the listener %s, whose clients have none", listen)
	}
	return nil
}

func (t Terms) appendTo(b []byte) []byte {
	b = append(b, byte(t.Direct))
	b = binary.BigEndian.AppendUint64(b, t.Rate)
	b = binary.BigEndian.AppendUint32(b, t.Streams)
	b = binary.BigEndian.AppendUint64(b, t.Month)
	return t.Hours.appendTo(t.Clients.appendTo(b))
}

func readTerms(r *wire.Reader) (Terms, error) {
	t := Terms{Direct: Direct(r.Uint8()), Rate: r.Uint64(), Streams: r.Uint32(), Month: r.Uint64()}
	var errs [2]error
	t.Clients, errs[0] = readClients(r)
	t.Hours, errs[1] = readHours(r)
	return t, errors.Join(errs[:]...)
}

// Clients are the addresses that may connect to a listener. The zero Clients are
// all. They are comparable with ==.
type Clients struct{ encoded string } // prefixes in ascending order

// NewClients returns the clients of some prefixes. Their order and repeated ones
// make no difference.
func NewClients(prefixes []netip.Prefix) (Clients, error) {
	list := slices.Clone(prefixes)
	sort.Slice(list, func(i, j int) bool { return list[i].Compare(list[j]) < 0 })
	list = slices.Compact(list)
	if len(list) > MaxClients {
		return Clients{}, fmt.Errorf("clients: %d prefixes: at most %d are allowed", len(list), MaxClients)
	}
	var b []byte
	for _, p := range list {
		if err := CheckPrefix(p); err != nil {
			return Clients{}, fmt.Errorf("clients: %w", err)
		}
		b = append(wire.AppendAddr(b, p.Addr()), byte(p.Bits()))
	}
	return Clients{string(b)}, nil
}

// CheckPrefix reports why p is no prefix of client addresses in its one form.
func CheckPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("that is no prefix")
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is a prefix of IPv4 addresses in IPv6 clothes", p)
	case p.Masked() != p:
		return fmt.Errorf("%s has bits set behind its length: write %s, or %s for the one address", p, p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	return nil
}

// IsZero reports whether c is all.
func (c Clients) IsZero() bool { return c == Clients{} }

// Prefixes returns the prefixes; none for all.
func (c Clients) Prefixes() (list []netip.Prefix) {
	r := wire.NewReader([]byte(c.encoded))
	for r.Done() != nil {
		list = append(list, netip.PrefixFrom(r.Addr(), int(r.Uint8())))
	}
	return list
}

// Allow reports whether a client with this address may connect. A client without
// one (the zero Addr) may where all may.
func (c Clients) Allow(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return c.IsZero() || slices.ContainsFunc(c.Prefixes(), func(p netip.Prefix) bool { return p.Contains(a) })
}

func (c Clients) String() string {
	var texts []string
	for _, p := range c.Prefixes() {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

func (c Clients) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.Prefixes())))
	return append(b, c.encoded...)
}

var errClients = errors.New("clients: the prefixes are not in order")

func readClients(r *wire.Reader) (Clients, error) {
	list := make([]netip.Prefix, r.Count(MaxClients, 6))
	for i := range list {
		list[i] = netip.PrefixFrom(r.Addr(), int(r.Uint8()))
	}
	c, err := NewClients(list)
	if err == nil && !slices.Equal(c.Prefixes(), list) {
		return Clients{}, errClients
	}
	return c, err
}
