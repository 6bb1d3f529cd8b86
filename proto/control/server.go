package control

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// CheckServer reports what is wrong with a server as a config file names it:
// "host", for which Addresses tries the default ports, or "host:port".
func CheckServer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = trimBrackets(s), defaultPorts[0]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return errors.New("the port is not a number from 1 to 65535")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if strings.Contains(host, ":") {
		return errors.New("an IPv6 address with a port stands in brackets, like [2001:db8::1]:443")
	}
	if host == "" || len(host) > 253 || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return errors.New("write HOST:PORT, where HOST is a name or an IP address")
	}
	return nil
}
