package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/portal/internal/state"
	wirecontrol "github.com/netport/netport/proto/control"
)

// maxNetworks bounds the networks that are remembered.
const maxNetworks = 64

// networks is what was learned of networks: about connections that carry
// nothing, and how a server was reached last. The one of now is the first.
type networks struct {
	changed func()
	list    []network
}

type network struct {
	name   string // empty: what it is is not known
	pauses *wirecontrol.Pauses
	way    wirecontrol.Way // zero: none was reached
}

func newNetworks(kept []state.Network, changed func()) networks {
	n := networks{changed: changed}
	for _, k := range kept[:min(len(kept), maxNetworks)] {
		n.list = append(n.list, network{k.Name, wirecontrol.NewPauses(k.Silence, changed), k.Way})
	}
	n.enter("")
	return n
}

// enter makes a network the one of now. It reports whether it was another.
func (n *networks) enter(name string) bool {
	i := slices.IndexFunc(n.list, func(w network) bool { return w.name == name })
	if i == 0 {
		return false
	}
	now := network{name: name}
	if i > 0 {
		now = n.list[i]
		n.list = slices.Delete(n.list, i, i+1)
	} else {
		now.pauses = wirecontrol.NewPauses(wirecontrol.Learned{}, n.changed)
	}
	n.list = slices.Insert(n.list, 0, now)
	n.list = n.list[:min(len(n.list), maxNetworks)]
	return true
}

// kept returns the networks of which something was learned.
func (n *networks) kept() []state.Network {
	var list []state.Network
	for _, w := range n.list {
		if l := w.pauses.Learned(); l != (wirecontrol.Learned{}) || w.way != (wirecontrol.Way{}) {
			list = append(list, state.Network{Name: w.name, Silence: l, Way: w.way})
		}
	}
	return list
}

// pauses returns what is known of the network of now.
func (c *Client) pauses() *wirecontrol.Pauses {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.networks.list[0].pauses
}

// lastWay returns how a server was reached last in the network of now.
func (c *Client) lastWay() wirecontrol.Way {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.networks.list[0].way
}

// reached notes how a server was reached in the network of now.
func (c *Client) reached(w wirecontrol.Way) {
	c.mu.Lock()
	now := &c.networks.list[0]
	news := now.way != w
	now.way = w
	c.mu.Unlock()
	if news {
		c.Changed()
	}
}

// NetworkChanged says that this machine has another address or another way out,
// or was asleep; name is what the network of now is remembered by. The
// connection has to prove within 5 seconds that it lives, or is made anew at once
// where its address is gone; and one over UDP in another network, where TCP may pass.
func (c *Client) NetworkChanged(name string) {
	c.mu.Lock()
	c.doubted = time.Now()
	another := c.networks.enter(name)
	if another {
		c.times.moved()
	}
	conn := c.conn
	c.mu.Unlock()
	switch {
	case conn == nil:
	case another && conn.RemoteAddr().Network() == "udp":
		conn.Abort(errors.New("this is another network than the one that let UDP alone pass"))
	case away(conn.LocalAddr()):
		conn.Abort(fmt.Errorf("this machine has no longer the address %v", conn.LocalAddr()))
	default:
		conn.Probe()
		return
	}
	c.dial()
}

// dialAnewEvery is how often at most Check has a server dialled anew.
const dialAnewEvery = 2 * time.Second

// Check has the connection prove within 5 seconds that it lives: something shows
// that the way to the server is another now. Where there is none the server is
// dialled at once, and anew: a greeting that began on the way before is never
// answered.
func (c *Client) Check() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubted = time.Now()
	if c.conn != nil {
		c.conn.Probe()
	} else if c.doubted.Sub(c.anew) > dialAnewEvery {
		c.anew = c.doubted
		c.dial()
	}
}

// away reports whether this machine has lost an address.
func away(a net.Addr) bool {
	local, ok := a.(interface{ AddrPort() netip.AddrPort }) // TCP's or UDP's
	list, err := net.InterfaceAddrs()
	if !ok || err != nil {
		return false
	}
	at := local.AddrPort().Addr().Unmap().WithZone("")
	return !slices.ContainsFunc(list, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap().WithZone("") == at
	})
}
