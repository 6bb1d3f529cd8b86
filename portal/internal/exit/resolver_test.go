package exit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers on loopback as its func says: the addresses of a name for
// its nth query of a type, or a name to go on with (CNAME).
type nameServer struct {
	answer func(name string, nth int) (addrs []netip.Addr, cname string)

	mu    sync.Mutex // guards the following
	asked map[string]int
}

// start serves until the test ends and returns a resolver that asks it.
func (s *nameServer) start(t *testing.T) *net.Resolver {
	t.Helper()
	s.asked = make(map[string]int)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(t, conn) })
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

func (s *nameServer) serve(t *testing.T, conn *net.UDPConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var query dnsmessage.Message
		if err != nil || query.Unpack(buf[:n]) != nil || len(query.Questions) != 1 {
			t.Errorf("bad query: %v", err)
			continue
		}
		b, err := s.reply(query)
		if err != nil {
			t.Error(err)
			continue
		}
		conn.WriteToUDPAddrPort(b, from)
	}
}

func (s *nameServer) reply(query dnsmessage.Message) ([]byte, error) {
	q := query.Questions[0]
	s.mu.Lock()
	key := q.Name.String() + q.Type.String()
	s.asked[key]++
	nth := s.asked[key]
	s.mu.Unlock()
	name := q.Name.String()
	addrs, cname := s.answer(name[:len(name)-1], nth)
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true, Authoritative: true},
		Questions: query.Questions,
	}
	owner := q.Name
	if cname != "" {
		to := dnsmessage.MustNewName(cname + ".")
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.CNAMEResource{CNAME: to},
		})
		owner = to
	}
	for _, a := range addrs {
		h := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET} // TTL 0
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	if len(addrs) == 0 && cname == "" {
		m.RCode = dnsmessage.RCodeNameError
	}
	return m.Pack()
}
