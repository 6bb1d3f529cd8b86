// Package bpf is the seam between the relay's core and the data planes that
// carry the packets of its sessions.
//
// The core, in the module relay, owns every decision: which legs are proven,
// which pairs exist, how long they live, whom a session is charged to. A data
// plane owns one table and follows it: a packet that comes from a leg's
// address to that leg's port is sent on to the other leg, from the other leg's
// port, and nothing but addresses, ports and checksums changes. A plane knows no
// keys, no names and no framing, starts nothing by itself, and never decides
// that a leg may be joined. What is not in its table is not its business: user
// space gets it, and so does every packet that carries the STUN cookie.
//
// This file holds only the interface, so that the core can be written and tested
// against it. Kernel is the plane that runs in the kernel (tc and XDP, from one C
// source); the one of user space belongs to the relay, which has the sockets.
package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrVersions says that the legs of a pair differ in their IP version: the
// kernel rewrites packets in place, so user space carries such a pair.
var ErrVersions = errors.New("the legs differ in their IP version")

// Protocol is the IP protocol of a pair, by its IANA number.
type Protocol uint8

// The protocols that a plane can carry.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Leg is one portal's side of a session as it is seen on the wire at the relay.
type Leg struct {
	// Remote is the address and port that the portal's packets come from: its
	// own, or that of the outermost NAT in front of it. It is never an
	// IPv4-mapped IPv6 address.
	Remote netip.AddrPort
	// Port is the relay's port that the portal sends to and hears from.
	Port uint16
	// Local is the relay's address that the portal sends to and hears from, of
	// the version of Remote. An invalid one is not known; then only user space
	// can carry the leg.
	Local netip.Addr
}

// Pair is two legs that are joined: what comes from one goes to the other. It is
// a comparable value, and it is its own key in a plane's table.
type Pair struct {
	Protocol Protocol
	A, B     Leg
}

// Terms bound what a pair may carry. A rate holds for each direction by itself,
// with a tolerance for bursts of 100 ms of it; what exceeds it is dropped and
// counted.
type Terms struct {
	// Lifetime is how long the pair lives on with no packet in either direction,
	// rounded up to whole seconds. 0: for ever.
	Lifetime time.Duration
	// Packets and Bytes are rates per second; bytes are of the transport's
	// payload. 0: no limit.
	Packets, Bytes uint64
}

// Traffic counts what a plane has sent on in one direction. Bytes are those of
// the transport's payload, so that the figures of all planes mean the same.
type Traffic struct {
	Packets uint64
	Bytes   uint64
}

// Counters is the traffic of a pair, by the leg that sent it.
type Counters struct {
	FromA, FromB Traffic
}

// Plus returns the sum of t and u.
func (t Traffic) Plus(u Traffic) Traffic { return Traffic{t.Packets + u.Packets, t.Bytes + u.Bytes} }

// Plus returns the sum of c and d.
func (c Counters) Plus(d Counters) Counters {
	return Counters{c.FromA.Plus(d.FromA), c.FromB.Plus(d.FromB)}
}

// Plane forwards the packets of the pairs that it was told about. Its methods may
// be called from several goroutines at once.
type Plane interface {
	// Name says which plane this is, for the log and for status: "userspace",
	// "tc", "xdp".
	Name() string

	// Add makes both directions of the pair forward from now on, within its
	// terms. A direction that is in the table already is redirected and keeps
	// its counters: a leg that moved to a new address is added with the new pair
	// first, and the old pair is removed afterwards, so that no packet falls
	// between them. A pair that is in the table already gets the new terms.
	// An error, of which ErrVersions is one, leaves the table as it was.
	Add(pair Pair, terms Terms) error

	// Remove ends both directions of the pair, except one that has been
	// redirected by a later Add, and returns the last counters of those that
	// it ended. Removing a pair that is not there is no error and returns zero.
	Remove(pair Pair) (Counters, error)

	// Counters returns what both directions have carried so far.
	Counters(pair Pair) (Counters, error)

	// Close ends all forwarding and gives back what the plane holds.
	Close() error
}
