package portmap

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// victim is a host that nobody is to be led to: it counts who comes, over TCP and UDP.
type victim struct {
	addr netip.AddrPort
	came atomic.Int32
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			v.came.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(v.addr))
	if err != nil {
		t.Fatal(err)
	}
	answers(t, conn, func([]byte, netip.AddrPort) { v.came.Add(1) })
	return v
}

// goOn writes the same until nobody reads it any more.
func goOn(w io.Writer, text string) {
	for {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

// raw takes a connection over from HTTP.
func raw(w http.ResponseWriter, do func(net.Conn)) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	do(conn)
	return true
}

// T42: what answers a search can lead to no other host, hold nobody up for longer than 3 s,
// nor have memory taken; and the portal says what was wrong.
func TestHostileRoutersOfUPnP(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	drip := make(chan struct{}) // closed at the end
	t.Cleanup(func() { close(drip) })
	elsewhere := "http://" + v.addr.String() + "/desc.xml"
	bomb := `<!DOCTYPE root [<!ENTITY a "aaaaaaaaaa">` + func() (s string) {
		for c := 'b'; c < 'k'; c++ {
			s += fmt.Sprintf("<!ENTITY %c %q>", c, strings.Repeat("&"+string(c-1)+";", 10))
		}
		return s
	}() + "]>"
	serves := func(do func(http.ResponseWriter) bool) func(*box) { return func(b *box) { b.serve = do } }
	raws := func(do func(net.Conn)) func(*box) {
		return serves(func(w http.ResponseWriter) bool { return raw(w, do) })
	}
	var all sync.WaitGroup
	for _, tt := range []struct {
		name string
		bend func(*box)
		want string // in what is said
	}{
		{"LOCATION at a cloud's metadata", func(b *box) { b.location = "http://169.254.169.254/latest/meta-data/" }, "not itself: not asked"},
		{"LOCATION at another host", func(b *box) { b.location = elsewhere }, "not itself: not asked"},
		{"LOCATION by a name", func(b *box) { b.location = strings.Replace(b.location, "127.0.0.1", "localhost", 1) }, "not itself: not asked"},
		{"LOCATION with the gateway as its user", func(b *box) { b.location = "http://127.0.0.1:80@" + v.addr.String() + "/" }, "no address of HTTP"},
		{"LOCATION is a file", func(b *box) { b.location = "file:///etc/passwd" }, "no address of HTTP"},
		{"a redirect", serves(func(w http.ResponseWriter) bool {
			w.Header().Set("Location", elsewhere)
			w.WriteHeader(http.StatusFound)
			return true
		}), "status 302"},
		{"control at another host", func(b *box) { b.page = strings.Replace(b.page, "/control?", elsewhere+"?", 1) }, "not itself: not asked"},
		{"control at another host without a scheme", func(b *box) { b.page = strings.Replace(b.page, "/control?", "//"+v.addr.String()+"/?", 1) }, "not itself: not asked"},
		{"URLBase at another host", func(b *box) {
			b.page = strings.Replace(b.page, "<device>", "<URLBase>"+elsewhere+"</URLBase><device>", 1)
		}, "not itself: not asked"},
		{"a body without an end", serves(func(w http.ResponseWriter) bool { goOn(w, "<root>"); return true }), "more than 64 KB"},
		{"a body without an end or chunks", raws(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); goOn(c, "<root>") }), "more than 64 KB"},
		{"a chunk of 2 GB", raws(func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n")
		}), "more than 64 KB"},
		{"a length of 2 GB", raws(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2147483647\r\n\r\n") }), "more than 64 KB"},
		{"a negative length", raws(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n") }), "more than 64 KB"},
		{"a head without an end", raws(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); goOn(c, "X: y\r\n") }), "no head of HTTP"},
		{"a line without an end", raws(func(c net.Conn) { goOn(c, "HTTP") }), "no head of HTTP"},
		{"drop by drop", raws(func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for tick := time.NewTicker(50 * time.Millisecond); ; {
				select {
				case <-drip:
				case <-tick.C:
					if _, err := io.WriteString(c, "<"); err == nil {
						continue
					}
				}
				tick.Stop()
				return
			}
		}), "takes too long"},
		{"never", raws(func(c net.Conn) { io.Copy(io.Discard, c) }), "takes too long"},
		{"an XML bomb", func(b *box) { b.page = bomb + strings.Replace(b.page, "Bo", "&j;", 1) }, "definitions of its own"},
		{"an entity of its own", func(b *box) { b.page = strings.Replace(b.page, "Bo", "&j;", 1) }, "invalid character entity"},
		{"deep elements", func(b *box) { b.page = strings.Repeat("<a>", 10_000) }, "too deep"},
		{"no service", func(b *box) { b.page = "<root></root>" }, "maps no ports"},
		{"a LOCATION without an end", func(b *box) { b.location += strings.Repeat("x", 1500) }, "too long"},
		{"no head", func(b *box) {
			b.answer = func(c *net.UDPConn, from netip.AddrPort) { c.WriteToUDPAddrPort([]byte("\xff\x00"), from) }
		}, "it is none"},
		{"another host answers in the router's name", func(b *box) {
			forger, _ := listenUDP(t, stranger)
			b.answer = func(_ *net.UDPConn, from netip.AddrPort) { forger.WriteToUDPAddrPort(b.found(), from) }
		}, "no answer"},
	} {
		b := newBox(t, tt.bend)
		all.Go(func() { // side by side: most of it is waiting
			began := time.Now()
			_, err := findUPnP(t.Context(), here, b.ssdp)
			if took := time.Since(began); took > upnpTime+time.Second {
				t.Errorf("%s: it took %v, want %v at most", tt.name, took, upnpTime)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
				t.Errorf("%s: error = %v, want one with %q", tt.name, err, tt.want)
			}
		})
	}
	all.Wait()
	if n := v.came.Load(); n != 0 {
		t.Errorf("the victim was reached %d times", n)
	}
}

// What a router that maps says may be wrong, too.
func TestHostileMappings(t *testing.T) {
	t.Parallel()
	external := func(addr string) func(*box) {
		return func(b *box) {
			b.action = func(name string) string {
				if name != "GetExternalIPAddress" {
					return ""
				}
				return "<a><NewExternalIPAddress>" + addr + "</NewExternalIPAddress></a>"
			}
		}
	}
	refuses := func(code string) func(*box) {
		return func(b *box) {
			b.action = func(name string) string {
				if name != "AddPortMapping" {
					return ""
				}
				return fault(code)
			}
		}
	}
	for _, tt := range []struct {
		name string
		bend func(*box)
		why  string
	}{
		{"the external address is a cloud's metadata", external("169.254.169.254"), "is metadata"},
		{"is loopback", external("127.0.0.1"), "is loopback"},
		{"is loopback in IPv6", external("::ffff:127.0.0.1"), "is loopback"},
		{"is none", external("0.0.0.0"), "is unspecified"},
		{"is not written as one", external("vic"), `external address is "vic"`},
		{"it maps for ever only", refuses(onlyPermanent), "it maps for ever only"},
		{"all ports are taken", refuses(conflict), "UPnP error 718"},
		{"it may not", refuses("606"), "UPnP error 606"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, tt.bend)
			m := New(Config{Log: slog.New(slog.DiscardHandler), Changed: func() { t.Error("there are candidates") }})
			r := newRouter(here, protocolsAt(0, b.ssdp)[2:], slog.New(slog.DiscardHandler))
			for again := time.Now(); !again.After(time.Now()); {
				again = r.step(t.Context(), []Port{udp})
				m.note(r.state())
			}
			if got := m.State().Why; !strings.Contains(got, tt.why) {
				t.Errorf("why = %q, want %q in it", got, tt.why)
			}
			r.follow(nil)
			if n := b.count(); n != 0 {
				t.Errorf("%d mappings are left", n)
			}
		})
	}
}

func TestPortThatAnotherHasIsMappedToAnother(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(b *box) {
		tries := 0
		b.action = func(name string) string {
			if name == "AddPortMapping" {
				if tries++; tries < conflicts {
					return fault(conflict)
				}
			}
			return ""
		}
	})
	r := run(t, nowhere(t), b.ssdp, udp)
	if got := r.wait(1).Mappings[0].External; got.Port() == udp.Number || got.Port() < 20000 {
		t.Errorf("external = %v, want another port", got)
	}
	r.stop()
	if n := b.count(); n != 0 {
		t.Errorf("%d mappings are left", n)
	}
}

// The answers of a router that floods are read for no longer than those of one that does
// not, and leave nothing behind.
func TestFloodOfAnswersEnds(t *testing.T) {
	b := newBox(t, func(b *box) {
		b.answer = func(c *net.UDPConn, from netip.AddrPort) {
			for i := range 20_000 {
				text := fmt.Sprintf("HTTP/1.1 200 OK\r\nLocation: http://127.0.0.1:9/%d\r\n\r\n", i)
				if _, err := c.WriteToUDPAddrPort([]byte(text), from); errors.Is(err, net.ErrClosed) {
					return
				}
			}
		}
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	if _, err := findUPnP(t.Context(), here, b.ssdp); err == nil {
		t.Error("believed")
	}
	if took := time.Since(began); took > upnpTime+time.Second {
		t.Errorf("it took %v", took)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("%d bytes are kept, want 2 MB at most (T42)", grown)
	}
}
