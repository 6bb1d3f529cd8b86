package control

import (
	"net/netip"
	"slices"
	"sync"
)

const (
	// maxHosts and maxGood bound a Book: names, and addresses of each.
	maxHosts = 16
	maxGood  = 4
)

// Book remembers at which addresses the servers of a name were reached. They
// are dialled when the name cannot be looked up, or leads to somebody else. It is
// safe for concurrent use.
type Book struct {
	changed func()

	mu    sync.Mutex // guards the following
	hosts []Host     // the one reached last first
}

// Host is one name of a Book and its addresses, the one reached last first.
type Host struct {
	Name  string
	Addrs []netip.Addr
}

// NewBook returns a Book that holds hosts. changed is called, without a lock
// held, when it has taken something new.
func NewBook(hosts []Host, changed func()) *Book {
	b := &Book{changed: changed}
	for _, h := range hosts[:min(len(hosts), maxHosts)] {
		b.hosts = append(b.hosts, Host{h.Name, slices.Clone(h.Addrs[:min(len(h.Addrs), maxGood)])})
	}
	return b
}

// Hosts returns what the Book holds.
func (b *Book) Hosts() []Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Host, 0, len(b.hosts))
	for _, h := range b.hosts {
		list = append(list, Host{h.Name, slices.Clone(h.Addrs)})
	}
	return list
}

// good returns the addresses of a name; of no Book there are none.
func (b *Book) good(name string) []netip.Addr {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.hosts {
		if h.Name == name {
			return slices.Clone(h.Addrs)
		}
	}
	return nil
}

// reached takes that the server of a name has proven itself at an address.
func (b *Book) reached(name string, at netip.Addr) {
	if _, err := netip.ParseAddr(name); b == nil || err == nil || !at.IsValid() {
		return
	}
	b.mu.Lock()
	i := slices.IndexFunc(b.hosts, func(h Host) bool { return h.Name == name })
	if i == 0 && b.hosts[0].Addrs[0] == at {
		b.mu.Unlock()
		return
	}
	h := Host{Name: name}
	if i >= 0 {
		h = b.hosts[i]
		b.hosts = slices.Delete(b.hosts, i, i+1)
	}
	h.Addrs = slices.DeleteFunc(h.Addrs, func(a netip.Addr) bool { return a == at })
	h.Addrs = slices.Insert(h.Addrs, 0, at)
	h.Addrs = h.Addrs[:min(len(h.Addrs), maxGood)]
	b.hosts = slices.Insert(b.hosts, 0, h)
	b.hosts = b.hosts[:min(len(b.hosts), maxHosts)]
	b.mu.Unlock()
	b.changed()
}
