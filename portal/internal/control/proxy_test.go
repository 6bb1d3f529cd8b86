package control

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/netport/netport/proto/proxy"
)

// connectTo returns settings with an HTTP proxy that connects to one server, whatever it is
// asked for.
func connectTo(t *testing.T, server string) *proxy.Settings {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	tasks.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer near.Close()
				in := bufio.NewReader(near)
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				far, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer far.Close()
				io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
				tasks.Go(func() {
					io.Copy(far, in)
					far.Close()
				})
				io.Copy(near, far)
			})
		}
	})
	s, err := proxy.New("http://"+l.Addr().String(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Through a proxy the server sees the proxy, and this portal knows the server by name: what
// stands at the proxy's address is neither.
func TestAddressesOfAProxyAreNobodys(t *testing.T) {
	s := newScriptBy(t, func(server string) *proxy.Settings { return connectTo(t, server) })
	if at := s.client.Seen(); at.IsValid() {
		t.Errorf("peers are told that this portal is at %v, which is the proxy's", at)
	}
	if at := s.client.Server(); at.IsValid() {
		t.Errorf("the server is taken to be at %v: it may name relays as if it were there", at)
	}
}
