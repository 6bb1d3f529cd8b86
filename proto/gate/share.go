package gate

import (
	"net"
	"net/netip"
	"sync"
)

// Share counts unproven connections that cannot be closed to make room for others, as a
// handshake of QUIC cannot. So one prefix has at most PerPrefix of them, and at most a quarter of
// what is free: however many a few strangers hold, who comes from elsewhere finds room. The zero
// Share is ready to use.
type Share struct {
	mu       sync.Mutex // guards the following
	total    int
	byPrefix map[netip.Prefix]int
}

// Enter counts a connection, if there is room for it. The function it returns takes it out again,
// when it has proven itself or is gone; it may be called more than once.
func (s *Share) Enter(from net.Addr) (leave func(), ok bool) {
	prefix := prefixOf(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	free := room() - s.total
	if free <= 0 || s.byPrefix[prefix] >= max(1, min(PerPrefix, free/4)) {
		return nil, false
	}
	if s.byPrefix == nil {
		s.byPrefix = make(map[netip.Prefix]int)
	}
	s.total++
	s.byPrefix[prefix]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.byPrefix[prefix]--; s.byPrefix[prefix] == 0 {
			delete(s.byPrefix, prefix)
		}
	}), true
}
