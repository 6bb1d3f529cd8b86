package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is the one domain that the name server of the demo knows, in lower case and
// with its final dot, and the addresses of its hosts.
var zone = map[string]netip.Addr{
	"plc.factory.example.":    netip.MustParseAddr("10.0.0.5"),
	"camera.factory.example.": netip.MustParseAddr("10.0.0.17"),
}

// answerTTL is for how many seconds a resolver may keep an answer.
const answerTTL = 60

// answer makes the reply to one DNS query (RFC 1035): addresses of zone, or the
// reason why there are none. What is no query gets no reply.
func answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, fmt.Errorf("read a query: %w", err)
	}
	if head.Response {
		return nil, errors.New("read a query: it is a reply")
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return nil, fmt.Errorf("read a query: %w", err)
	}

	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID:               head.ID,
			Response:         true,
			OpCode:           head.OpCode,
			Authoritative:    true,
			RecursionDesired: head.RecursionDesired,
		},
		Questions: questions,
	}
	switch {
	case head.OpCode != 0:
		reply.RCode = dnsmessage.RCodeNotImplemented
	case len(questions) != 1:
		reply.RCode = dnsmessage.RCodeFormatError
	default:
		q := questions[0]
		addr, ok := zone[strings.ToLower(q.Name.String())]
		if !ok {
			reply.RCode = dnsmessage.RCodeNameError
		} else if q.Type == dnsmessage.TypeA && q.Class == dnsmessage.ClassINET {
			reply.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: answerTTL},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			}}
		}
	}
	return reply.Pack()
}

// serveNames answers DNS queries that come to conn until ctx ends.
func serveNames(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve names: %w", err)
		}
		reply, err := answer(buf[:n])
		if err != nil {
			continue // Not a query: silence, as any name server.
		}
		// A resolver that is gone asks again, if it still wants to know.
		_, _ = conn.WriteTo(reply, from)
	}
}

// lookup asks the name server at server, over UDP, for the address of a host.
func lookup(ctx context.Context, server, host string) (netip.Addr, time.Duration, error) {
	resolver := &net.Resolver{
		PreferGo:     true,
		StrictErrors: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if !strings.HasPrefix(network, "udp") {
				return nil, fmt.Errorf("dial %s: the demo's name server speaks UDP only", network)
			}
			var d net.Dialer
			return d.DialContext(ctx, "udp", server)
		},
	}
	start := time.Now()
	addrs, err := resolver.LookupNetIP(ctx, "ip4", strings.TrimSuffix(host, ".")+".")
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("ask %s for %s: %w", server, host, err)
	}
	return addrs[0].Unmap(), time.Since(start), nil
}
