package control

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/netport/netport/proto/wire"
)

// CheckServers reports what is wrong with the servers that a configuration names, as its method
// Errorf says it (conffile.File): 1 to wire.MaxServers, each right by CheckServer.
func CheckServers(servers []string, errorf func(key, format string, args ...any) error) error {
	switch n := len(servers); {
	case n == 0:
		return errorf("servers", `no server: write servers = ["HOST:PORT"]`)
	case n > wire.MaxServers:
		return errorf("servers", "%d servers: at most %d are possible", n, wire.MaxServers)
	}
	for i, s := range servers {
		if err := CheckServer(s); err != nil {
			return errorf("servers["+strconv.Itoa(i)+"]", "server %q: %v", s, err)
		}
	}
	return nil
}

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
