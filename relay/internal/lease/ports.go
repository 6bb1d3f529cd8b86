package lease

// ports hands out the session ports in turn, so that one is used again as late
// as possible. What must rest after a session is the 4-tuple, which the kernel
// sees to; a port itself may be used again at once.
type ports struct {
	first, last uint16
	used        map[uint16]bool
	next        uint16
}

func newPorts(first, last uint16) ports {
	return ports{first: first, last: last, used: make(map[uint16]bool), next: first}
}

// take returns a free port, or 0 when there is none.
func (p *ports) take() uint16 {
	if len(p.used) > int(p.last-p.first) {
		return 0
	}
	for {
		port := p.next
		if p.next++; port == p.last {
			p.next = p.first
		}
		if !p.used[port] {
			p.used[port] = true
			return port
		}
	}
}

// claim takes one port, if it is free and one to hand out.
func (p *ports) claim(port uint16) bool {
	if port < p.first || port > p.last || p.used[port] {
		return false
	}
	p.used[port] = true
	return true
}

// give takes a port back. 0 is no port.
func (p *ports) give(port uint16) { delete(p.used, port) }

// Ports returns how many of the session ports for sockets are taken, and how many there
// are.
func (t *Table) Ports() (taken, all int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ports.used), int(t.ports.last-t.ports.first) + 1
}
