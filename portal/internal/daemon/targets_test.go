package daemon

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
)

// named is a service that answers each line or datagram with its name, at an
// address that it keeps while it is away.
type named struct {
	w                *world
	network, address string
	name             string
	serving          sync.WaitGroup
	close            func()
}

func (w *world) named(network, name string) *named {
	w.Helper()
	n := &named{w: w, network: network, address: w.freePort(network), name: name}
	n.start()
	w.Cleanup(n.stop)
	return n
}

func (n *named) start() {
	n.w.Helper()
	if n.network == "udp" {
		conn, err := net.ListenPacket("udp", n.address)
		if err != nil {
			n.w.Fatal(err)
		}
		n.close = func() { conn.Close() }
		n.serving.Go(func() {
			b := make([]byte, 100)
			for {
				_, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				conn.WriteTo([]byte(n.name), from)
			}
		})
		return
	}
	l, err := net.Listen("tcp", n.address)
	if err != nil {
		n.w.Fatal(err)
	}
	n.close = func() { l.Close() }
	n.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() {
				defer conn.Close()
				b := make([]byte, 100)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
					io.WriteString(conn, n.name)
				}
			})
		}
	})
}

// stop stops listening.
func (n *named) stop() { n.close() }

// reach asks whoever answers at an address for its name.
func reach(conn net.Conn) string { return reachWithin(conn, 10*time.Second) }

func reachWithin(conn net.Conn, d time.Duration) string {
	conn.SetDeadline(time.Now().Add(d))
	if _, err := io.WriteString(conn, "who"); err != nil {
		return err.Error()
	}
	b := make([]byte, 100)
	n, err := conn.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// TestSeveralTargetsAreTriedByTheirRanks: the first as long as it is there, the
// next when its target refuses or its portal is away, and the first again for new
// connections when it is back. What runs stays where it is.
func TestSeveralTargetsAreTriedByTheirRanks(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			w := newWorld(t)
			ann, north, _ := w.portal("ann", ""), w.portal("north", ""), w.portal("south", "")
			one, two := w.named(network, "one"), w.named(network, "two")
			at := w.freePort(network)
			for rank, to := range []struct{ portal, address string }{{"north", one.address}, {"south", two.address}} {
				p := w.permission("web", "ann", network+"://"+at, to.portal, network+"://"+to.address)
				p.Rank = uint8(rank)
				w.grant(p)
			}
			// inUse waits until status says so.
			inUse := func(want string) {
				t.Helper()
				w.wait(want+" in use", func() bool {
					list := ann.Status().Forwards
					for _, f := range list {
						if f.InUse != (f.Peer == want) {
							return false
						}
						if f.InUse && (f.State != Up || !strings.Contains(f.Why, "in use")) {
							return false
						}
					}
					return len(list) == 2
				})
			}
			fresh := func(want string) {
				t.Helper()
				w.wait("an answer of "+want, func() bool {
					conn, err := net.Dial(network, at)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					return reach(conn) == want
				})
			}
			inUse("north")
			fresh("one")
			if network == "tcp" {
				one.stop()
				for range 3 { // not one of them fails, whoever speaks first
					if got := reach(w.dial(network, at)); got != "two" {
						t.Errorf("with the first target gone %q answers", got)
					}
				}
				inUse("south")
				list, err := asked[[]Explanation](ann, CallExplain, ExplainArgs{Forward: "web"})
				if err != nil || len(list) != 2 || list[0].Works || !list[1].Works {
					t.Errorf("explained: %+v, %v", list, err)
				}
				one.start()
				fresh("one")
				inUse("north")
			} else {
				// The first datagrams find out that nobody is there.
				one.stop()
				w.wait("an answer of two", func() bool { return reachWithin(w.dial(network, at), 100*time.Millisecond) == "two" })
				one.start()
				inUse("north")
				fresh("one")
			}
			north.stop()
			w.wait("north offline", func() bool { online, known := ann.client.Online("north"); return known && !online })
			began := time.Now()
			if got := reach(w.dial(network, at)); got != "two" {
				t.Errorf("with the first portal away %q answers", got)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("that took %v", took)
			}
			inUse("south")
			second := w.dial(network, at)
			if got := reach(second); got != "two" {
				t.Errorf("%q answers", got)
			}
			w.run(north.config, "north")
			inUse("north")
			fresh("one")
			if got := reach(second); got != "two" {
				t.Errorf("what ran there is answered by %q", got)
			}
		})
	}
}

// TestTargetIsReplacedByTheNextPolicy: while both are granted new connections go
// to the newer one; the old one's end with it, and the listener stays.
func TestTargetIsReplacedByTheNextPolicy(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.portal("ann", ""), w.portal("factory", "")
	one, two := w.named("tcp", "one"), w.named("tcp", "two")
	at := w.freePort("tcp")
	p := w.permission("web", "ann", "tcp://"+at, "factory", "tcp://"+one.address)
	old := w.grant(p)
	ann.waitState("web", Up)
	runs := w.dial("tcp", at)
	if got := reach(runs); got != "one" {
		t.Fatalf("%q answers", got)
	}
	p.Target, p.Version = endpoint.MustParse("tcp://"+two.address), w.version+1
	w.mu.Lock()
	w.version++
	w.mu.Unlock()
	w.grant(p)
	w.wait("the second", func() bool { return len(ann.Status().Forwards) == 2 })
	if got := reach(w.dial("tcp", at)); got != "two" {
		t.Errorf("%q answers while both are granted", got)
	}
	if got := reach(runs); got != "one" {
		t.Errorf("what ran there is answered by %q", got)
	}
	w.revoke(old)
	runs.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := runs.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("what ran under the old one: %v, want a reset", err)
	}
	if got := reach(w.dial("tcp", at)); got != "two" {
		t.Errorf("then %q answers", got)
	}
}

// terms grants a forward of ann's to factory with terms.
func (w *world) terms(name, listen, target string, terms grant.Terms) grant.Grant {
	p := w.permission(name, "ann", listen, "factory", target)
	p.Terms = terms
	return w.grant(p)
}
