package grant

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// Party is one portal of a permission: its name and its key, both.
type Party struct {
	Name string
	Key  identity.KeyHash
}

// Is reports whether p is the proven peer.
func (p Party) Is(peer identity.Peer) bool {
	return peer.ID.Role == identity.Portal && peer.ID.Name == p.Name && peer.Key == p.Key
}

// Proxy is the version of the PROXY protocol header that the exit portal
// writes to the target before the client's bytes; 0 is none.
type Proxy uint8

// Permission is what the policy key signs.
type Permission struct {
	Version uint64
	Forward string
	Entry   Party
	Listen  endpoint.Endpoint
	Exit    Party
	Target  endpoint.Endpoint
	End     time.Time // zero: the policy sets none; whole seconds
	Proxy   Proxy
	Rank    uint8 // among the targets of one listener: 0 is tried first
	Terms
}

// Check reports why p makes no sense as a permission.
func (p Permission) Check() error {
	for _, n := range []string{p.Forward, p.Entry.Name, p.Exit.Name} {
		if err := identity.CheckName(n); err != nil {
			return err
		}
	}
	if p.Listen.IsZero() || p.Target.IsZero() {
		return fmt.Errorf("forward %q has no listener or no target", p.Forward)
	}
	if p.Entry.Key.IsZero() || p.Exit.Key.IsZero() {
		return fmt.Errorf("forward %q names a portal without its key", p.Forward)
	}
	if err := p.Listen.CheckListener(); err != nil {
		return err
	}
	if err := p.Target.CheckTarget(); err != nil {
		return err
	}
	if p.Listen.Datagram() != p.Target.Datagram() {
		return fmt.Errorf("forward %q joins %s and %s: datagrams and streams do not mix", p.Forward, p.Listen, p.Target)
	}
	if p.Proxy > 2 || p.Proxy != 0 && p.Target.Datagram() {
		return fmt.Errorf("forward %q: PROXY protocol %d to %s does not exist", p.Forward, p.Proxy, p.Target)
	}
	if err := p.Terms.check(p.Listen); err != nil {
		return fmt.Errorf("forward %q: %w", p.Forward, err)
	}
	return nil
}

// SamePair reports whether p and q join the same two ends in the same way,
// whatever their names, versions, ends and terms, and whichever keys of the
// portals they name: what runs under p may go on under q, by the terms of q.
func (p Permission) SamePair(q Permission) bool {
	return p.Entry.Name == q.Entry.Name && p.Listen == q.Listen && p.Exit.Name == q.Exit.Name && p.Target == q.Target && p.Proxy == q.Proxy
}

// AppendTo appends the encoding of the permission, which must pass Check.
func (p Permission) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, p.Version)
	b = wire.AppendBlob(b, []byte(p.Forward))
	b = wire.AppendBlob(b, []byte(p.Entry.Name))
	b = append(b, p.Entry.Key[:]...)
	b = wire.AppendBlob(b, []byte(p.Listen.String()))
	b = wire.AppendBlob(b, []byte(p.Exit.Name))
	b = append(b, p.Exit.Key[:]...)
	b = wire.AppendBlob(b, []byte(p.Target.String()))
	b = appendTime(b, p.End)
	return p.Terms.appendTo(append(b, byte(p.Proxy), p.Rank))
}

// ParsePermission reads a permission and checks it.
func ParsePermission(b []byte) (Permission, error) {
	r := wire.NewReader(b)
	var p Permission
	var errs [3]error
	p.Version = r.Uint64()
	p.Forward = r.Text(identity.MaxName)
	p.Entry.Name = r.Text(identity.MaxName)
	r.Copy(p.Entry.Key[:])
	p.Listen, errs[0] = endpoint.Parse(r.Text(endpoint.MaxLen))
	p.Exit.Name = r.Text(identity.MaxName)
	r.Copy(p.Exit.Key[:])
	p.Target, errs[1] = endpoint.Parse(r.Text(endpoint.MaxLen))
	p.End = readTime(&r)
	p.Proxy = Proxy(r.Uint8())
	p.Rank = r.Uint8()
	p.Terms, errs[2] = readTerms(&r)
	if err := r.Done(); err != nil {
		return Permission{}, err
	}
	for _, err := range append(errs[:], p.Check()) {
		if err != nil {
			return Permission{}, fmt.Errorf("%w: %v", wire.ErrMalformed, err)
		}
	}
	return p, nil
}

// ID returns the id of the permission.
func (p Permission) ID() wire.GrantID {
	sum := sha256.Sum256(p.AppendTo(nil))
	return wire.GrantID(sum[:16])
}

// maxTime is the last second of the year 9999: no time on the wire is later,
// so that none overflows into "never".
const maxTime = 253402300799

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(min(max(t.Unix(), 1), maxTime)))
}

func readTime(r *wire.Reader) time.Time {
	n := r.Uint64()
	if n > maxTime {
		r.Reject()
		return time.Time{}
	}
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}
