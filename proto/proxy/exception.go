package proxy

import (
	"net"
	"net/netip"
	"strings"
)

// maxExceptions bounds the list of NO_PROXY.
const maxExceptions = 1024

// exception is an element of NO_PROXY, as curl and Go understand it: "*", an address, a
// network, or a domain, and after the first and the last perhaps a port.
type exception struct {
	all    bool
	prefix netip.Prefix // of one address or of a network; invalid: a name
	name   string       // "example.org", with all below it; ".example.org" is only what is below
	port   string       // empty: any
}

func parseExceptions(list string) (all []exception) {
	for text := range strings.SplitSeq(list, ",") {
		if len(all) == maxExceptions {
			break
		}
		text = strings.ToLower(strings.TrimSpace(text))
		if text == "" {
			continue
		}
		all = append(all, parseException(text))
	}
	return all
}

func parseException(text string) exception {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return exception{prefix: prefix.Masked()}
	}
	var e exception
	host := strings.Trim(text, "[]")
	if h, port, err := net.SplitHostPort(text); err == nil {
		host, e.port = h, port
	}
	if a, err := netip.ParseAddr(host); err == nil {
		e.prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return e
	}
	e.all = host == "*"
	e.name = strings.TrimPrefix(host, "*")
	return e
}

// covers reports whether connections to a host and port are not for the proxy.
func (e exception) covers(host, port string) bool {
	if e.port != "" && e.port != port {
		return false
	}
	if e.all {
		return true
	}
	a, err := netip.ParseAddr(host)
	if e.prefix.IsValid() || err == nil {
		return err == nil && e.prefix.IsValid() && e.prefix.Contains(a.Unmap())
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if below := "." + strings.TrimPrefix(e.name, "."); strings.HasSuffix(host, below) {
		return true
	}
	return host == e.name
}
