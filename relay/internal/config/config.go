// Package config reads the configuration file of a relay. reference.toml
// beside it shows every key.
package config

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/control"
)

// DefaultFile is where the configuration is looked for.
const DefaultFile = "/etc/netport/relay/config.toml"

const (
	maxServers  = 16
	maxNetworks = 1024
	maxCapacity = 1_000_000
)

// Config is a checked configuration. Its file names are absolute or relative
// to the working directory, as the name of the file was.
type Config struct {
	Servers           []string // "host" or "host:port"
	Certificate       string
	Key               string
	CA                string
	Socket            string
	Addresses         []netip.Addr // none: all of the machine
	First, Last       uint16
	SharedTCP         uint16 // 0: none
	SharedUDP         uint16 // 0: none
	Deny              []netip.Prefix
	AllowLoopback     bool
	Capacity          int
	SessionsPerPortal int
	LogLevel          string
}

// file is the configuration as it is written.
type file struct {
	Servers           []string `toml:"servers"`
	Certificate       string   `toml:"certificate"`
	Key               string   `toml:"key"`
	CA                string   `toml:"ca"`
	Socket            string   `toml:"socket"`
	Addresses         []string `toml:"addresses"`
	First             int      `toml:"first_port"`
	Last              int      `toml:"last_port"`
	SharedTCP         int      `toml:"shared_tcp_port"`
	SharedUDP         int      `toml:"shared_udp_port"`
	Deny              []string `toml:"deny"`
	AllowLoopback     bool     `toml:"allow_loopback"`
	Capacity          int      `toml:"capacity"`
	SessionsPerPortal int      `toml:"sessions_per_portal"`
	LogLevel          string   `toml:"log_level"`
}

// Load reads and checks the file name.
func Load(name string) (Config, error) {
	raw := file{
		Certificate: "cert.pem", Key: "key.pem", CA: "ca.pem", Socket: "relay.sock",
		First: 20000, Last: 32767, Capacity: 4000, SessionsPerPortal: 200, LogLevel: "info",
	}
	f, err := conffile.Load(name, &raw)
	if err != nil {
		return Config{}, err
	}
	return check(f, raw)
}

func check(f *conffile.File, raw file) (Config, error) {
	c := Config{
		Servers:     raw.Servers,
		Certificate: f.Path(raw.Certificate), Key: f.Path(raw.Key), CA: f.Path(raw.CA), Socket: f.Path(raw.Socket),
		AllowLoopback: raw.AllowLoopback,
		Capacity:      raw.Capacity, SessionsPerPortal: raw.SessionsPerPortal, LogLevel: raw.LogLevel,
	}
	if n := len(raw.Servers); n == 0 || n > maxServers {
		return Config{}, f.Errorf("servers", `%d servers: name 1 to %d, as servers = ["HOST:PORT"]`, n, maxServers)
	}
	for i, s := range raw.Servers {
		if err := control.CheckServer(s); err != nil {
			return Config{}, f.Errorf(at("servers", i), "server %q: %v", s, err)
		}
	}
	for _, p := range []struct{ key, path string }{{"certificate", c.Certificate}, {"key", c.Key}, {"ca", c.CA}, {"socket", c.Socket}} {
		if p.path == "" {
			return Config{}, f.Errorf(p.key, "key %q is empty: name a file or leave the key out", p.key)
		}
	}
	for i, s := range raw.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Is4In6() || a.Zone() != "" {
			return Config{}, f.Errorf(at("addresses", i), "%q is not an IP address", s)
		}
		c.Addresses = append(c.Addresses, a)
	}
	for i, s := range raw.Deny {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return Config{}, f.Errorf(at("deny", i), `%q is not a network: write its first address and length, like "192.0.2.0/24"`, s)
		}
		c.Deny = append(c.Deny, p)
	}
	if len(c.Deny) > maxNetworks {
		return Config{}, f.Errorf("deny", "%d networks: at most %d are possible", len(c.Deny), maxNetworks)
	}
	if err := c.checkPorts(f, raw); err != nil {
		return Config{}, err
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"capacity", c.Capacity}, {"sessions_per_portal", c.SessionsPerPortal}} {
		if n.value < 1 || n.value > maxCapacity {
			return Config{}, f.Errorf(n.key, "%d sessions: 1 to %d are possible", n.value, maxCapacity)
		}
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return Config{}, f.Errorf("log_level", "log level %q: use debug, info, warn or error", c.LogLevel)
	}
	return c, nil
}

func (c *Config) checkPorts(f *conffile.File, raw file) error {
	for _, p := range []struct {
		key   string
		value int
		least int
		into  *uint16
	}{
		{"first_port", raw.First, 1024, &c.First}, {"last_port", raw.Last, 1024, &c.Last},
		{"shared_tcp_port", raw.SharedTCP, 0, &c.SharedTCP}, {"shared_udp_port", raw.SharedUDP, 0, &c.SharedUDP},
	} {
		if p.value < p.least || p.value > 65535 {
			return f.Errorf(p.key, "port %d: %d to 65535 are possible", p.value, p.least)
		}
		*p.into = uint16(p.value)
	}
	if c.Last < c.First {
		return f.Errorf("last_port", "the last session port, %d, is below the first, %d", c.Last, c.First)
	}
	for key, port := range map[string]uint16{"shared_tcp_port": c.SharedTCP, "shared_udp_port": c.SharedUDP} {
		if c.First <= port && port <= c.Last {
			return f.Errorf(key, "port %d is one of the session ports: choose one outside %d to %d", port, c.First, c.Last)
		}
	}
	return nil
}

func at(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
