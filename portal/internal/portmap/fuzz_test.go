package portmap

import (
	"bytes"
	"net/netip"
	"net/url"
	"testing"
)

// atTheGateway reports whether an address leads to the gateway and nowhere else.
func atTheGateway(u *url.URL) bool {
	to, err := netip.ParseAddrPort(u.Host)
	return err == nil && to.Addr() == here.gateway && u.Scheme == "http"
}

// Whatever answers a search: the portal is led to its gateway, or nowhere.
func FuzzLocation(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nLocation: http://127.0.0.1:5000/desc.xml\r\n\r\n", "HTTP/1.1 200 OK\r\nLOCATION:http://127.0.0.1@192.0.2.1/\r\n\r\n",
		"HTTP/1.1 200 OK\r\nLocation: //192.0.2.1\r\n\r\n", "HTTP/1.1 200 OK\r\nLocation: http://[::ffff:127.0.0.1]/\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := location(b, here.gateway); err == nil && !atTheGateway(u) {
			t.Errorf("%q leads to %s", b, u)
		}
	})
}

// Whatever a description says: so it is with the service.
func FuzzDescription(f *testing.F) {
	service := `<root><URLBase>http://127.0.0.1:5000/</URLBase><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>`
	for _, seed := range []string{"/ctl", "http://192.0.2.1/", "//192.0.2.1/", "ctl&amp;x", "<![CDATA[/ctl]]>", "http:ctl", "?", "#"} {
		f.Add([]byte(service + seed + "</controlURL></service></root>"))
	}
	at := &url.URL{Scheme: "http", Host: "127.0.0.1:5000", Path: "/desc.xml"}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := describe(bytes.Clone(b), at, here.gateway); err == nil && !atTheGateway(s.control) {
			t.Errorf("%q leads to %s", b, s.control)
		}
	})
}

// Whatever a router answers, no more of it is taken than there may be.
func FuzzAnswerOfHTTP(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.0 500 no\r\n\r\nabc", "HTTP/1.1 200\r\nContent-Length: 65537\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := readAnswer(bytes.NewReader(b))
		if err == nil && len(body) > min(maxBody, len(b)) {
			t.Errorf("%d bytes of %d", len(body), len(b))
		}
	})
}
