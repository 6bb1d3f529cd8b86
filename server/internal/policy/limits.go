package policy

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
)

const (
	// minRate is the lowest rate: with less nothing gets through before it is
	// given up.
	minRate = 1000
	// A forward on request may be allowed for minOpening to maxOpening at a time.
	minOpening = time.Minute
	maxOpening = 30 * 24 * time.Hour
)

// readLimits reads rate, streams, month and proxy_protocol.
func (p *Policy) readLimits(f *Forward, raw *rawForward) (err error) {
	bad := func(key string, err error) error {
		return p.file.Errorf(f.key+"."+key, "forward %q: %v", f.Name, err)
	}
	if p.file.Has(f.key + ".rate") {
		size, ok := strings.CutSuffix(raw.Rate, "/s")
		if !ok {
			return bad("rate", fmt.Errorf("rate %.50q: write it per second, as in \"10MB/s\"", raw.Rate))
		}
		if f.terms.Rate, err = parseSize(size); err != nil {
			return bad("rate", fmt.Errorf("rate: %w", err))
		}
		if f.terms.Rate < minRate {
			return bad("rate", fmt.Errorf("rate %q: it is at least %s/s", raw.Rate, sizeText(minRate)))
		}
	}
	if p.file.Has(f.key + ".month") {
		if f.terms.Month, err = parseSize(raw.Month); err != nil {
			return bad("month", fmt.Errorf("month: %w", err))
		}
	}
	if v := raw.Streams; v != nil {
		if *v < 1 || *v > math.MaxUint32 {
			return bad("streams", fmt.Errorf("streams is 1 to %d: leave it out for no limit", uint32(math.MaxUint32)))
		}
		f.terms.Streams = uint32(*v)
	}
	if v := raw.ProxyProtocol; v != nil {
		if f.proxy, err = proxyVersion(*v, f.Listen.First.Datagram()); err != nil {
			return bad("proxy_protocol", err)
		}
	}
	return nil
}

// readClients reads who may connect to the listener.
func (p *Policy) readClients(f *Forward, raw *rawForward) error {
	if raw.Clients == nil {
		return nil
	}
	key := f.key + ".clients"
	if s := f.Listen.First.Scheme(); s != endpoint.TCP && s != endpoint.UDP {
		return p.file.Errorf(key, "forward %q: clients of %s have no addresses: who may connect there, its own machine says", f.Name, f.Listen)
	}
	texts, err := p.readList(f, "clients", `"192.168.7.0/24"`, raw.Clients, grant.MaxClients)
	if err != nil {
		return err
	}
	var prefixes []netip.Prefix
	for _, t := range texts {
		c, err := parsePrefix(t.text)
		if err == nil && slices.Contains(prefixes, c) {
			err = fmt.Errorf("%s is named twice", c)
		}
		if err != nil {
			return p.file.Errorf(t.key, "forward %q: clients: %v", f.Name, err)
		}
		prefixes = append(prefixes, c)
	}
	if f.terms.Clients, err = grant.NewClients(prefixes); err != nil {
		return p.file.Errorf(key, "forward %q: %v", f.Name, err)
	}
	ap, _ := f.Listen.First.AddrPort()
	if a := ap.Addr(); a.IsLoopback() && !slices.ContainsFunc(prefixes, func(c netip.Prefix) bool { return c.Overlaps(loopback(a)) }) {
		p.warn(key, "forward %q: it listens at %s, where only clients of the same machine come, and allows none of them", f.Name, f.Listen)
	}
	return nil
}

// loopback is the prefix of all loopback addresses of a's family.
func loopback(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
	}
	return netip.PrefixFrom(netip.IPv6Loopback(), 128)
}

// parsePrefix reads a prefix or a single address.
func parsePrefix(s string) (netip.Prefix, error) {
	c, err := netip.ParsePrefix(s)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		c = netip.PrefixFrom(a, a.BitLen())
	} else if !strings.Contains(s, "/") {
		return c, fmt.Errorf("%.60q is no address and no prefix: write them as 192.168.7.9 and 192.168.7.0/24", s)
	} else if c.IsValid() && c.String() != s {
		return c, fmt.Errorf("%.60q: write %s", s, c)
	}
	if !c.IsValid() {
		return c, fmt.Errorf("%.60q is no prefix (%v)", s, err)
	}
	return c, grant.CheckPrefix(c)
}

// readPaths reads direct and relay.
func (p *Policy) readPaths(f *Forward, raw *rawForward) error {
	switch raw.Direct {
	case "only":
		f.terms.Direct = grant.DirectOnly
	case "never":
		f.terms.Direct = grant.DirectNever
	default:
		if p.file.Has(f.key + ".direct") {
			return p.file.Errorf(f.key+".direct", "forward %q: direct is \"only\" (by no relay) or \"never\" (by relays only): leave it out for either", f.Name)
		}
	}
	if !p.file.Has(f.key + ".relay") {
		return nil
	}
	f.relay = raw.Relay
	if err := identity.CheckName(f.relay); err != nil {
		return p.file.Errorf(f.key+".relay", "forward %q: relay %v", f.Name, err)
	}
	p.relays = append(p.relays, place{f.relay, f.key + ".relay"})
	return nil
}

func (p *Policy) readOnRequest(f *Forward, raw *rawForward) error {
	key := f.key + ".on_request"
	if !p.file.Has(key) {
		return nil
	}
	d, err := conffile.ParseDuration(raw.OnRequest)
	if err == nil && (d < minOpening || d > maxOpening || d%time.Second != 0) {
		err = fmt.Errorf("%q: it is %s to %s", raw.OnRequest, conffile.FormatDuration(minOpening), conffile.FormatDuration(maxOpening))
	}
	if err != nil {
		return p.file.Errorf(key, "forward %q: on_request: %v", f.Name, err)
	}
	f.onRequest = d
	return nil
}

// Says returns what the file says of the forward beside its ends, in words.
func (f *Forward) Says() (list []string) {
	say := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	t := &f.terms
	say(f.onRequest > 0, "on request for %s", conffile.FormatDuration(f.onRequest))
	say(!f.until.IsZero(), "until %s", f.until.Format(time.RFC3339))
	if !t.Hours.IsZero() {
		say(true, "hours %s", hoursText(t.Hours, f.zone))
	}
	say(t.Rate > 0, "rate %s/s", sizeText(t.Rate))
	say(t.Streams > 0, "streams %d", t.Streams)
	say(t.Month > 0, "month %s", sizeText(t.Month))
	say(!t.Clients.IsZero(), "clients %s", t.Clients)
	say(t.Direct != grant.DirectAny, "direct %s", t.Direct)
	say(f.relay != "", "relay %s", f.relay)
	say(f.proxy != 0, "proxy_protocol %d", f.proxy)
	return list
}
