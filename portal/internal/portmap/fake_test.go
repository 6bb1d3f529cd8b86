package portmap

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/network"
)

// here is where the tests' portal is: its gateway has the address that others on the
// network do not have.
var here = place{gateway: netip.MustParseAddr("127.0.0.1"), local: netip.MustParseAddr("127.0.0.1")}

// stranger is an address of somebody else on the network.
var stranger = netip.MustParseAddr("127.0.0.2")

func listenUDP(t *testing.T, at netip.Addr) (*net.UDPConn, uint16) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// answers has a socket answer each packet as reply says, until the test ends.
func answers(t *testing.T, conn *net.UDPConn, reply func(packet []byte, from netip.AddrPort)) {
	t.Helper()
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			reply(b[:n], from)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
}

// home is a router that speaks PCP or NAT-PMP, with what it maps.
type home struct {
	port uint16

	mu     sync.Mutex
	mapped map[string]uint16 // external port by "protocol port"
	epoch  uint32
	bend   func(answer []byte) []byte // changes what it answers; nil: nothing
}

// newHome returns a router. With pmp it knows NAT-PMP alone.
func newHome(t *testing.T, pmp bool) *home {
	t.Helper()
	h := &home{mapped: make(map[string]uint16), epoch: 1000}
	conn, port := listenUDP(t, here.gateway)
	h.port = port
	answers(t, conn, func(b []byte, from netip.AddrPort) {
		h.mu.Lock()
		defer h.mu.Unlock()
		speak := h.pcp
		if pmp {
			speak = h.natpmp
		}
		answer := speak(b)
		if h.bend != nil {
			answer = h.bend(answer)
		}
		conn.WriteToUDPAddrPort(answer, from)
	})
	return h
}

// answer has it change what it answers.
func (h *home) answer(bend func([]byte) []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bend = bend
}

// take notes a mapping. The external port is another than the internal one.
func (h *home) take(protocol byte, port uint16, lease uint32) (external uint16) {
	key := fmt.Sprint(protocol, port)
	if lease == 0 {
		delete(h.mapped, key)
		return 0
	}
	h.mapped[key] = port + 1
	return port + 1
}

func (h *home) pcp(b []byte) []byte {
	answer := append([]byte{2, b[1] | 0x80, 0, 0}, b[4:8]...)
	answer = binary.BigEndian.AppendUint32(answer, h.epoch)
	answer = append(answer, make([]byte, 12)...)
	if b[1] == pcpMap {
		body := append([]byte(nil), b[24:60]...)
		external := h.take(body[12], binary.BigEndian.Uint16(body[16:]), binary.BigEndian.Uint32(b[4:]))
		binary.BigEndian.PutUint16(body[18:], external)
		copy(body[20:], append(make([]byte, 10), 0xff, 0xff, 20, 0, 1, 1))
		answer = append(answer, body...)
	}
	return answer
}

func (h *home) natpmp(b []byte) []byte {
	answer := []byte{0, b[1] | 0x80, 0, 0}
	if b[0] != 0 {
		answer[3] = 1
		return binary.BigEndian.AppendUint32(answer, h.epoch)
	}
	answer = binary.BigEndian.AppendUint32(answer, h.epoch)
	if b[1] == pmpExternal {
		return append(answer, 20, 0, 1, 1)
	}
	external := h.take(b[1], binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint32(b[8:]))
	answer = append(answer, b[4:6]...)
	answer = binary.BigEndian.AppendUint16(answer, external)
	return append(answer, b[8:12]...)
}

func (h *home) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.mapped)
}

// box is a UPnP router, good but for what a test bends.
type box struct {
	ssdp uint16
	http *httptest.Server

	location string                             // in place of its own
	page     string                             // in place of its description
	serve    func(http.ResponseWriter) bool     // in place of all of HTTP; true: done
	done     func(name string) (cut bool)       // whether the connection ends in place of an answer
	action   func(name string) (answer string)  // in place of an action; "": its own
	answer   func(*net.UDPConn, netip.AddrPort) // in place of its answer to a search

	mu     sync.Mutex
	mapped map[string]bool // "UDP 4000"
	lease  string
}

// newBox returns a router that bend has bent; nil: nothing.
func newBox(t *testing.T, bend func(*box)) *box {
	t.Helper()
	b := &box{mapped: make(map[string]bool)}
	b.http = httptest.NewServer(b)
	t.Cleanup(b.http.Close)
	b.location = b.http.URL + "/desc.xml"
	b.page = `<?xml version="1.0" encoding="ISO-8859-1"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><friendlyName>Bo` + "\xee" + `te</friendlyName>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/no</controlURL></service></serviceList><deviceList><device>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control?a=1&amp;b=2</controlURL></service></serviceList></device></deviceList></device></root>`
	if bend != nil {
		bend(b)
	}
	conn, port := listenUDP(t, here.gateway)
	b.ssdp = port
	answers(t, conn, func(packet []byte, from netip.AddrPort) {
		if b.answer != nil {
			b.answer(conn, from)
			return
		}
		if strings.HasPrefix(string(packet), "M-SEARCH") {
			conn.WriteToUDPAddrPort(b.found(), from)
		}
	})
	return b
}

// found is its answer to a search.
func (b *box) found() []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nST: %s\r\nUSN: uuid:1\r\nEXT:\r\nLocation: %s\r\n\r\n", device, b.location)
}

func (b *box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if b.serve != nil && b.serve(w) {
		return
	}
	if r.Method == "GET" {
		fmt.Fprint(w, b.page)
		return
	}
	_, name, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
	values := make(map[string]string)
	body := make([]byte, r.ContentLength)
	r.Body.Read(body)
	texts(body, func(name, text string) { values[name] = text })
	if b.action != nil {
		if answer := b.action(name); answer != "" {
			fmt.Fprint(w, answer)
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := values["NewProtocol"] + " " + values["NewExternalPort"]
	switch {
	case r.URL.RequestURI() != "/control?a=1&b=2":
		http.NotFound(w, r)
		return
	case name == "AddPortMapping":
		b.mapped[key], b.lease = true, values["NewLeaseDuration"]
	case name == "DeletePortMapping":
		delete(b.mapped, key)
	}
	if b.done != nil && b.done(name) {
		raw(w, func(net.Conn) {})
		return
	}
	// In chunks, as some do.
	w.(http.Flusher).Flush()
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%sResponse><NewExternalIPAddress>20.0.1.1</NewExternalIPAddress></u:%sResponse></s:Body></s:Envelope>`, name, name)
}

// fault is a refusal of an action.
func fault(code string) string {
	return `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><detail><UPnPError><errorCode>` + code + `</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`
}

func (b *box) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mapped)
}

// running is a Mapper that runs, with the means to wait for its state.
type running struct {
	*Mapper
	t       *testing.T
	changed chan struct{}
	stop    func()
}

// run runs a Mapper towards services of the router here at these ports.
func run(t *testing.T, pcp, ssdp uint16, ports ...Port) *running {
	t.Helper()
	r := &running{t: t, changed: make(chan struct{}, 1)}
	r.Mapper = New(Config{Network: network.New(slog.New(slog.DiscardHandler)), Log: slog.New(slog.DiscardHandler), Changed: func() {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}})
	r.protocols = protocolsAt(pcp, ssdp)
	r.place = func() place { return here }
	r.Keep(ports)
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { r.Run(ctx) })
	r.stop = func() {
		cancel()
		tasks.Wait()
	}
	t.Cleanup(r.stop)
	return r
}

// wait waits until so many candidates are known.
func (r *running) wait(n int) State {
	r.t.Helper()
	for deadline := time.After(10 * time.Second); len(r.Candidates()) != n; {
		select {
		case <-r.changed:
		case <-deadline:
			r.t.Fatalf("candidates = %v, want %d; %+v", r.Candidates(), n, r.State())
		}
	}
	return r.State()
}
