package faults

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/netport/netport/lab/await"
)

// slowNames answers every question about an address with one, later by the delay.
type slowNames struct {
	conn  *net.UDPConn
	addr  netip.Addr
	delay atomic.Int64 // of an answer, in nanoseconds
}

func (n *slowNames) serve() {
	for b := make([]byte, 1500); ; {
		length, from, err := n.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var m dnsmessage.Message
		if err != nil || m.Unpack(b[:length]) != nil || len(m.Questions) != 1 {
			continue
		}
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			answer.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: n.addr.As4()}}}
		}
		packed, err := answer.Pack()
		if err != nil {
			continue
		}
		time.AfterFunc(time.Duration(n.delay.Load()), func() { n.conn.WriteToUDPAddrPort(packed, from) })
	}
}

// A name server that is slow, or silent, holds up those connections that wait for it, up to a limit, and nothing else; when
// it answers again they are served at once.
func TestSlowNamesHoldNothingElseUp(t *testing.T) {
	w := newNetwork(t)
	office := w.office.Host("factory")
	names := &slowNames{conn: w.plc.ListenUDP(53), addr: w.plc.Addr()}
	go names.serve()
	office.ShowFile("/etc/resolv.conf", fmt.Sprintf("nameserver %s\n", w.plc.Addr()))
	w.laptop, w.factory = w.Portal(w.home.Host("laptop")), w.Portal(office)
	w.allow(w.other(), forward{"named", fmt.Sprintf("tcp://127.0.0.1:%d", entryPort), fmt.Sprintf("tcp://plc.example:%d", echoPort)})
	defer await.Greet(w.plc.Listen(echoPort))()
	ln := w.plc.Listen(otherPort)
	p := w.connect(otherEntry, ln)
	serves := func(within time.Duration) {
		t.Helper()
		begun := time.Now()
		if err := w.served(entryPort); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > within {
			t.Errorf("served after %v, want %v at most", took, within)
		}
	}
	serves(2 * time.Second)
	const slow = 2 * time.Second
	names.delay.Store(int64(slow))
	serves(slow + 2*time.Second)

	names.delay.Store(int64(time.Hour))
	mark := w.factory.Process().Mark()
	const waiting = 600 // more than a peer may have under way
	begun := time.Now()
	dialMany(t, w.laptop.Host(), local(entryPort), waiting)
	connecting := time.Now()
	w.connect(otherEntry, ln)
	if took := time.Since(connecting); took > 2*time.Second {
		t.Errorf("a connection that needs no name took %v", took)
	}
	p.alive(t)
	w.factory.Status()
	wantLogged(t, w.factory.Daemon, mark, "plc.example", "target")
	t.Logf("refused after %v", time.Since(begun))
	await.Until(t, "served again", func() error {
		names.delay.Store(0)
		return w.served(entryPort)
	})
	p.alive(t)
}
