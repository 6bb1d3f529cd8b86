package survive

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/netport/netport/lab/topo"
)

// countTries counts from now on the packets that reach the relays' machines, whether a relay runs there or not.
func (w *world) countTries() (count func() uint64) {
	var counts []func() topo.Arrivals
	for _, r := range w.relays {
		counts = append(counts, r.Host().CountArrivals())
	}
	return func() (packets uint64) {
		for _, arrived := range counts {
			packets += arrived().Packets
		}
		return packets
	}
}

// opened is how many sessions the server has opened so far.
func (w *world) opened() int {
	sessions := make(map[string]bool) // a portal that asks for one that is there is granted the same
	for _, d := range w.Server.Audit() {
		if d.Event == "session" && d.Answer == "granted" {
			sessions[d.Session] = true
		}
	}
	return len(sessions)
}

// serverName is the server's in a world with names.
const serverName = "netport.example.org"

// names is a DNS server that knows one name, or nothing while it is told to fail.
type names struct {
	host *topo.Host
	addr netip.Addr // of serverName

	mu     sync.Mutex
	answer dnsmessage.RCode
	asked  int
}

func newNames(host *topo.Host, addr netip.Addr) *names {
	n := &names{host: host, addr: addr}
	conn := host.ListenUDP(53)
	go n.serve(conn)
	return n
}

// fail makes it answer every question with an error from now on; RCodeSuccess ends that.
func (n *names) fail(code dnsmessage.RCode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer, n.asked = code, 0
}

// questions is how many it was asked since fail.
func (n *names) questions() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *names) serve(conn *net.UDPConn) {
	b := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return // closed with the test
		}
		var m dnsmessage.Message
		if m.Unpack(b[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		if answer, err := n.reply(m).Pack(); err == nil {
			conn.WriteToUDPAddrPort(answer, from)
		}
	}
}

func (n *names) reply(m dnsmessage.Message) *dnsmessage.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	question := m.Questions[0]
	reply := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RCode: n.answer},
		Questions: m.Questions,
	}
	if n.answer == dnsmessage.RCodeSuccess && question.Type == dnsmessage.TypeA && question.Name.String() == serverName+"." {
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: n.addr.As4()},
		}}
	}
	return reply
}
