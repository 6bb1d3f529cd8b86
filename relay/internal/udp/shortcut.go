package udp

import (
	"errors"
	"log/slog"
	"maps"
	"sync"

	"github.com/netport/netport/bpf"
)

// errNoLocal is why a pair is not offered to a kernel plane.
var errNoLocal = errors.New("the system does not say at which address a leg is heard")

// maxCauses bounds how many causes of refusals are told apart.
const maxCauses = 16

// shortcut is the kernel plane in front of the user-space one, if there is one.
// It carries what it takes of the pairs that user space has anyway, so nothing
// that it refuses or loses is an error.
type shortcut struct {
	plane bpf.Plane // nil: none
	log   *slog.Logger

	// mu guards the following, and is held through the calls that change the
	// plane's table, so that it holds what taken says.
	mu      sync.Mutex
	taken   map[bpf.Pair]bpf.Terms
	refused map[string]uint64 // by cause
}

func newShortcut(plane bpf.Plane, log *slog.Logger) *shortcut {
	return &shortcut{plane: plane, log: log, taken: make(map[bpf.Pair]bpf.Terms), refused: make(map[string]uint64)}
}

// add offers a pair to the plane.
func (c *shortcut) add(pair bpf.Pair, terms bpf.Terms) {
	if c.plane == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(pair, terms)
}

func (c *shortcut) addLocked(pair bpf.Pair, terms bpf.Terms) {
	err := errNoLocal
	if pair.A.Local.IsValid() && pair.B.Local.IsValid() {
		err = c.plane.Add(pair, terms)
	}
	if err != nil {
		c.refuseLocked(pair, err)
		return
	}
	c.taken[pair] = terms
}

// refuseLocked counts a refusal by the error at the root of it, and logs the
// first one of its kind.
func (c *shortcut) refuseLocked(pair bpf.Pair, err error) {
	root := err
	for next := errors.Unwrap(root); next != nil; next = errors.Unwrap(root) {
		root = next
	}
	cause := root.Error()
	if c.refused[cause] == 0 && len(c.refused) >= maxCauses {
		cause = "other"
	}
	if c.refused[cause] == 0 {
		c.log.Warn("UDP pair stays in user space, as will others for the same reason", "plane", c.plane.Name(),
			"a", pair.A.Remote, "b", pair.B.Remote, "error", err)
	}
	c.refused[cause]++
}

// remove takes a pair from the plane and returns what it carried there.
func (c *shortcut) remove(pair bpf.Pair) bpf.Counters {
	if c.plane == nil {
		return bpf.Counters{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removeLocked(pair)
}

func (c *shortcut) removeLocked(pair bpf.Pair) bpf.Counters {
	delete(c.taken, pair)
	n, err := c.plane.Remove(pair)
	if err != nil {
		c.log.Error("UDP pair not removed", "plane", c.plane.Name(), "a", pair.A.Remote, "b", pair.B.Remote, "error", err)
	}
	return n
}

// counters returns what the plane has carried of a pair. What it cannot tell is
// not counted.
func (c *shortcut) counters(pair bpf.Pair) bpf.Counters {
	if c.plane == nil {
		return bpf.Counters{}
	}
	n, err := c.plane.Counters(pair)
	if err != nil {
		return bpf.Counters{}
	}
	return n
}

// Renew settles what becomes of a UDP pair that the kernel plane reports as
// expired, or holds from before a restart: it begins anew if a session has
// it, and is removed if none does.
func (r *Relay) Renew(pair bpf.Pair) {
	c := r.shortcut
	c.mu.Lock()
	defer c.mu.Unlock()
	if terms, ok := c.taken[pair]; ok {
		c.addLocked(pair, terms)
	} else if c.plane != nil {
		c.removeLocked(pair)
	}
}

// Shortcuts returns how many pairs the kernel plane carries, and how many it
// did not take, by cause.
func (r *Relay) Shortcuts() (carried int, refused map[string]uint64) {
	c := r.shortcut
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken), maps.Clone(c.refused)
}
