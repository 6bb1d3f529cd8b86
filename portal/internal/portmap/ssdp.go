package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// device is what is searched for; routers of version 2 answer to it, too.
	device = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	// maxLocation bounds an address in an answer.
	maxLocation = 512
	// maxLocations bounds how many descriptions of one router are read.
	maxLocations = 3
)

// group is where SSDP's searches go.
var group = netip.AddrFrom4([4]byte{239, 255, 255, 250})

// search sends searches for a UPnP router, to the gateway and to the group, and calls found
// with each address of a description at the gateway that the gateway itself names, until
// found returns true.
func search(ctx context.Context, at place, port uint16, found func(*url.URL) bool) error {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.local, 0)))
	if err != nil {
		return fmt.Errorf("search: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var seen []string
	refused := errors.New("no answer")
	b := make([]byte, 2048)
	for _, pause := range pauses {
		for _, to := range []netip.Addr{at.gateway, group} {
			to := netip.AddrPortFrom(to, port)
			// The gateway alone may be reachable, or the group alone be heard: what cannot be
			// sent is not.
			conn.WriteToUDPAddrPort(fmt.Appendf(nil, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", to, device), to)
		}
		conn.SetReadDeadline(time.Now().Add(pause))
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				if ctx.Err() != nil {
					return refused
				}
				break
			}
			if from.Addr().Unmap() != at.gateway {
				continue
			}
			u, err := location(b[:n], at.gateway)
			if err != nil {
				refused = err
				continue
			}
			if len(seen) >= maxLocations || slices.Contains(seen, u.String()) {
				continue
			}
			seen = append(seen, u.String())
			if found(u) {
				return nil
			}
		}
	}
	return refused
}

// location returns where an answer to a search says that the description is.
func location(answer []byte, gateway netip.Addr) (*url.URL, error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(answer)))
	line, err := r.ReadLine()
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		return nil, errors.New("read the answer to a search: it is none")
	}
	head, err := r.ReadMIMEHeader()
	if err != nil && head.Get("Location") == "" {
		return nil, errors.New("read the answer to a search: it names no description")
	}
	return atGateway(head.Get("Location"), nil, gateway)
}

// atGateway reads an address, relative to base if that is not nil, which must lead to the
// gateway: by number, by HTTP.
func atGateway(text string, base *url.URL, gateway netip.Addr) (*url.URL, error) {
	if len(text) > maxLocation {
		return nil, errors.New("the router names an address that is too long")
	}
	u, err := url.Parse(text)
	if err == nil && base != nil {
		u = base.ResolveReference(u)
	}
	if err != nil || u.Scheme != "http" || u.User != nil {
		return nil, fmt.Errorf("the router names %q, which is no address of HTTP", text)
	}
	if u.Port() == "" {
		u.Host += ":80"
	}
	if to, err := netip.ParseAddrPort(u.Host); err != nil || to.Addr() != gateway || to.Port() == 0 {
		return nil, fmt.Errorf("the router names %q, which is not itself: not asked", u.Host)
	}
	return u, nil
}
