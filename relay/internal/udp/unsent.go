package udp

import (
	"math/bits"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/relay/internal/drop"
)

// unsent counts packets that the system did not take, by what it said.
type unsent struct {
	mu      sync.Mutex // guards the following
	packets map[string]uint64
}

// add counts packets, and returns how many there were for this reason so far,
// and whether that is worth a line in the log: it is each time that it doubles.
func (u *unsent) add(reason string, packets int) (all uint64, tell bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.packets == nil {
		u.packets = make(map[string]uint64)
	}
	before := u.packets[reason]
	all = before + uint64(packets)
	u.packets[reason] = all
	return all, bits.Len64(all) != bits.Len64(before)
}

// drop counts packets to a leg, or an answer, that the system did not take. If
// the socket is closed and no other has come in its place, the session has ended.
func (r *Relay) drop(err error, to netip.AddrPort, packets int) {
	if err == unix.EBADF {
		r.cfg.Drops.AddN(drop.UnknownSession, packets)
		return
	}
	r.cfg.Drops.AddN(drop.SendFailed, packets)
	if all, tell := r.unsent.add(err.Error(), packets); tell {
		r.cfg.Log.Warn("UDP packets dropped: the system does not send them", "error", err, "to", to, "packets", all)
	}
}

// ofEarlier reports whether an error of sending may be what ICMP has said of an
// earlier packet: a connected socket tells it once, and sends nothing that time.
func (s *socket) ofEarlier(err unix.Errno) bool {
	switch err {
	case 0, unix.EAGAIN, unix.ENOBUFS, unix.EBADF:
		return false
	default:
		return s.remote.IsValid()
	}
}
