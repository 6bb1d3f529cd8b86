package exit

import (
	"fmt"
	"sync"

	"github.com/netport/netport/proto/wire"
)

const (
	// maxDialing bounds the dials under way, of all peers together.
	maxDialing = 1024
	// maxOfPeer bounds those of one peer; its tunnel hands no more to a Handler.
	maxOfPeer = 512
)

// crowd is who waits for an answer: the dials under way. A target that does not answer, or
// a name server, has those who want it wait until their time is over, and they must not
// take the places of others. So a peer has no more of all places than are free, and a
// target no more of its peer's places than are free: whatever crowds, about half of what
// was left before stays for who comes next.
//
// The zero crowd is ready to use.
type crowd struct {
	mu    sync.Mutex // guards the following
	all   int
	peers map[string]*ofPeer // those with dials under way
}

// ofPeer is the dials under way for one peer.
type ofPeer struct {
	all     int
	targets map[string]int
}

// enter counts a dial of a target for a peer, until leave is called. Its error is a
// *dialError: there are too many.
func (c *crowd) enter(peer, target string) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[peer]
	if p == nil {
		p = &ofPeer{targets: make(map[string]int)}
	}
	free := min(maxOfPeer, maxDialing-c.all) - p.all // for this peer
	if p.targets[target] >= free {
		return nil, &dialError{wire.ReasonBusy, "too many dials of this target are under way", fmt.Errorf("dials are under way: %d of this target for the peer, %d for the peer, %d in all", p.targets[target], p.all, c.all)}
	}
	c.all++
	p.all++
	p.targets[target]++
	if c.peers == nil {
		c.peers = make(map[string]*ofPeer)
	}
	c.peers[peer] = p
	return func() { c.leave(peer, target) }, nil
}

func (c *crowd) leave(peer, target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[peer]
	c.all--
	if p.targets[target]--; p.targets[target] == 0 {
		delete(p.targets, target)
	}
	if p.all--; p.all == 0 {
		delete(c.peers, peer)
	}
}
