package survive

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/topo"
)

// arrived are packets that reached relays' machines, whether a relay ran there or not.
type arrived struct {
	dialled uint64 // the first of TCP connections
	bound   uint64 // over UDP, but no QUIC: requests that bind legs, and what asks whether a way is open
	opened  uint64 // the first of QUIC connections, with a long header (RFC 9000, 17.2)
	// carried are those of connections that there were when the relays went: what was under way, and what QUIC sends until a
	// carrier is given up, as its congestion window and an application's datagrams have it.
	carried uint64
}

func (a arrived) tries() uint64 { return a.dialled + a.bound + a.opened }

func (a arrived) String() string {
	return fmt.Sprintf("%d packets that dial, %d that bind or ask, %d that open QUIC; and %d of connections that there were", a.dialled, a.bound, a.opened, a.carried)
}

// countArrivals counts from now on what reaches the relays' machines.
func (w *world) countArrivals(t *testing.T) (count func() arrived) {
	for _, r := range w.relays {
		nft := r.Host().Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(fmt.Sprintf(`table inet tries
delete table inet tries
table inet tries {
 counter dialled { }
 counter bound { }
 counter opened { }
 counter carried { }
 chain in {
  type filter hook prerouting priority raw
  iifname != %q return
  icmpv6 type 130-143 return
  tcp flags & (syn | ack) == syn counter name dialled return
  meta l4proto udp @th,64,2 0 counter name bound return
  meta l4proto udp @th,64,2 3 counter name opened return
  counter name carried
 }
}
`, r.Host().Device()))
		await.Success(t, nft)
	}
	return func() (sum arrived) {
		for _, r := range w.relays {
			text := await.Success(t, r.Host().Command("nft", "-j", "list", "counters", "table", "inet", "tries"))
			var listed struct {
				Nftables []struct {
					Counter struct {
						Name    string
						Packets uint64
					}
				}
			}
			if err := json.Unmarshal([]byte(text), &listed); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			of := map[string]*uint64{"dialled": &sum.dialled, "bound": &sum.bound, "opened": &sum.opened, "carried": &sum.carried}
			for _, object := range listed.Nftables {
				if n := of[object.Counter.Name]; n != nil {
					*n += object.Counter.Packets
				}
			}
		}
		return sum
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
