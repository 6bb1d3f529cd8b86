// Package config reads the configuration file of a relay. reference.toml
// beside it shows every key.
package config

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics/scrape"
	"github.com/netport/netport/proto/proxy"
)

// DefaultFile is where the configuration is looked for.
const DefaultFile = "/etc/netport/relay/config.toml"

// Prefix is what the variables of the environment begin with that stand for keys.
const Prefix = "NETPORT_RELAY_"

const (
	maxNetworks = 1024
	maxCapacity = 1_000_000
	leastRate   = 10 // packets or bytes in a second: below it a burst is less than one
	// maxDrain is below the minute and a half after which service managers kill what
	// they stop.
	maxDrain = time.Minute

	maxAddresses     = 63 // as many as the kernel planes know
	maxInterfaces    = 64
	maxInterfaceName = 15 // bytes: IFNAMSIZ less its end
)

// The modes of the data plane.
const (
	ModeAuto       = "auto"
	ModeXDP        = "xdp"
	ModeTC         = "tc"
	ModeXDPGeneric = "xdp-generic"
	ModeUserSpace  = "userspace"
)

// Config is a checked configuration. Its file names are absolute or relative
// to the working directory, as the name of the file was.
type Config struct {
	Servers     []string // "host" or "host:port"
	Proxy       *proxy.Settings
	Certificate string
	Key         string
	CA          string
	PolicyKey   ed25519.PublicKey // nil: the domain's authorities are those of CA for ever
	RenewKey    bool              // renewals are with a new key
	State       string            // folder
	Socket      string
	Addresses   []netip.Addr // none: all of the machine
	First, Last uint16       // session ports
	// PacketFirst and PacketLast are the session ports for TCP in packet mode: the
	// upper ones, in whole blocks. Both are 0 where there are none.
	PacketFirst, PacketLast uint16
	SharedTCP               uint16 // 0: none
	SharedUDP               uint16 // 0: none
	// TakeOver is the socket at which the program that has port SharedTCP hands over what
	// comes there for the relay; empty: the relay listens there itself. TakeOverFrom is the
	// user whom that program runs as, or his number; empty: the relay's own, or root.
	TakeOver, TakeOverFrom string
	Deny                   []netip.Prefix
	AllowLoopback          bool
	Capacity               int
	SessionsPerPortal      int
	// PacketsPerSecond and BytesPerSecond bound each connection in each direction.
	// 0: no limit.
	PacketsPerSecond, BytesPerSecond uint64
	Mode                             string   // one of the modes
	Interfaces                       []string // none: all that have one of the relay's addresses
	PinDir                           string
	Log                              command.Log
	Metrics                          scrape.Address // zero: they are not served
	TicketKeys                       string         // file
	Drain                            time.Duration  // how long sessions may be moved elsewhere when the relay stops

	written conffile.Values
}

// Written returns the values of all keys.
func (c Config) Written() conffile.Values { return c.written }

// file is the configuration as it is written.
type file struct {
	Servers           []string `toml:"servers"`
	Proxy             string   `toml:"proxy"`
	Password          string   `toml:"proxy_password_file"`
	Certificate       string   `toml:"certificate"`
	Key               string   `toml:"key"`
	CA                string   `toml:"ca"`
	PolicyKey         string   `toml:"policy_key"`
	RenewKey          bool     `toml:"renew_key"`
	State             string   `toml:"state"`
	Socket            string   `toml:"socket"`
	Addresses         []string `toml:"addresses"`
	First             int      `toml:"first_port"`
	Last              int      `toml:"last_port"`
	PacketPorts       string   `toml:"packet_ports"`
	SharedTCP         int      `toml:"shared_tcp_port"`
	SharedUDP         int      `toml:"shared_udp_port"`
	TakeOver          string   `toml:"take_over"`
	TakeOverFrom      string   `toml:"take_over_from"`
	Deny              []string `toml:"deny"`
	AllowLoopback     bool     `toml:"allow_loopback"`
	Capacity          int      `toml:"capacity"`
	SessionsPerPortal int      `toml:"sessions_per_portal"`
	PacketsPerSecond  int64    `toml:"packets_per_second"`
	BytesPerSecond    int64    `toml:"bytes_per_second"`
	Mode              string   `toml:"mode"`
	Interfaces        []string `toml:"interfaces"`
	PinDir            string   `toml:"pin_dir"`
	LogLevel          string   `toml:"log_level"`
	LogFormat         string   `toml:"log_format"`
	Metrics           string   `toml:"metrics"`
	TicketKeys        string   `toml:"ticket_keys"`
	Drain             string   `toml:"drain"`
}

// LiveKeys are the keys that need no restart.
var LiveKeys = []string{"log_level", "log_format", "deny", "sessions_per_portal", "packets_per_second", "bytes_per_second", "drain"}

// Help tells of the variables of the environment that stand for keys.
func Help() string { return conffile.Environment{Prefix: Prefix}.Help(defaults()) }

// Load reads and checks the file name, and what the environment says beside it.
func Load(name string) (Config, error) {
	raw := defaults()
	f, err := conffile.LoadWith(name, DefaultFile, conffile.Environment{Prefix: Prefix, List: os.Environ()}, &raw)
	if err != nil {
		return Config{}, err
	}
	return check(f, raw)
}

func defaults() file {
	return file{
		Certificate: "cert.pem", Key: "key.pem", CA: "ca.pem", State: "state", Socket: "relay.sock",
		First: 20000, Last: 32767, Capacity: 4000, SessionsPerPortal: 200,
		Mode: ModeAuto, PinDir: "/sys/fs/bpf/netport-relay", LogLevel: "info", LogFormat: command.LogText,
		TicketKeys: "tickets.key", Drain: "25s",
	}
}

func check(f *conffile.File, raw file) (Config, error) {
	c := Config{
		Servers:     raw.Servers,
		Certificate: f.Path(raw.Certificate), Key: f.Path(raw.Key), CA: f.Path(raw.CA), Socket: f.Path(raw.Socket),
		State: f.Path(raw.State), RenewKey: raw.RenewKey, AllowLoopback: raw.AllowLoopback,
		Capacity: raw.Capacity, SessionsPerPortal: raw.SessionsPerPortal,
		Mode: raw.Mode, Interfaces: raw.Interfaces, PinDir: f.Path(raw.PinDir), Log: command.Log{Level: raw.LogLevel, Format: raw.LogFormat},
		TicketKeys: f.Path(raw.TicketKeys), TakeOver: f.Path(raw.TakeOver), TakeOverFrom: raw.TakeOverFrom, written: conffile.ValuesOf(raw),
	}
	if err := control.CheckServers(raw.Servers, f.Errorf); err != nil {
		return Config{}, err
	}
	var err error
	if c.Proxy, err = proxy.Load(raw.Proxy, f.Path(raw.Password)); err != nil {
		return Config{}, f.Errorf("proxy", "%v", err)
	}
	for _, p := range []struct{ key, path string }{{"certificate", c.Certificate}, {"key", c.Key}, {"ca", c.CA}, {"state", c.State}, {"socket", c.Socket}, {"pin_dir", c.PinDir}, {"ticket_keys", c.TicketKeys}} {
		if p.path == "" {
			return Config{}, f.Errorf(p.key, "key %q is empty: name a path or leave the key out", p.key)
		}
	}
	if n := len(raw.Addresses); n > maxAddresses {
		return Config{}, f.Errorf("addresses", "%d addresses: at most %d are possible", n, maxAddresses)
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
	if err := c.checkPlane(f); err != nil {
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
	for _, r := range []struct {
		key   string
		value int64
		into  *uint64
	}{{"packets_per_second", raw.PacketsPerSecond, &c.PacketsPerSecond}, {"bytes_per_second", raw.BytesPerSecond, &c.BytesPerSecond}} {
		if r.value < 0 || r.value > 0 && r.value < leastRate {
			return Config{}, f.Errorf(r.key, "a limit of %d a second: 0 (none), or %d and more, is possible", r.value, leastRate)
		}
		*r.into = uint64(r.value)
	}
	if err := c.Log.CheckLevel(); err != nil {
		return Config{}, f.Errorf("log_level", "%v", err)
	}
	if err := c.Log.CheckFormat(); err != nil {
		return Config{}, f.Errorf("log_format", "%v", err)
	}
	if c.Metrics, err = scrape.ParseAddress(raw.Metrics); err != nil {
		return Config{}, f.Errorf("metrics", "%v", err)
	}
	if raw.PolicyKey != "" {
		if c.PolicyKey, err = grant.ParseKey(raw.PolicyKey); err != nil {
			return Config{}, f.Errorf("policy_key", "%v", err)
		}
	}
	if c.Drain, err = time.ParseDuration(raw.Drain); err != nil || c.Drain < 0 || c.Drain > maxDrain {
		return Config{}, f.Errorf("drain", `drain %q: write a duration from "0s" to "1m", like "25s"`, raw.Drain)
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
	switch err := local.CheckPath(c.TakeOver); {
	case err != nil:
		return f.Errorf("take_over", "take_over: %v", err)
	case c.TakeOver != "" && c.SharedTCP == 0:
		return f.Errorf("take_over", "take_over needs shared_tcp_port: the port at which connections come that are taken over, 443 mostly")
	case c.TakeOver == "" && c.TakeOverFrom != "":
		return f.Errorf("take_over_from", "take_over_from is of no use without take_over")
	}
	return c.checkPacketPorts(f, raw.PacketPorts)
}

// defaultPacketPorts is how many ports are for packet mode where the file does not
// say which: the upper third of the session ports, but no more than this.
const defaultPacketPorts = 4096

func (c *Config) checkPacketPorts(f *conffile.File, s string) error {
	const key, block = "packet_ports", leg.PacketPorts
	first, last := int(c.First), int(c.Last)
	switch s {
	case "none":
		return nil
	case "":
		end := (last + 1) / block * block
		if n := min((last-first+1)/3, defaultPacketPorts) / block * block; n > 0 {
			c.PacketFirst, c.PacketLast = uint16(end-n), uint16(end-1)
		}
		return nil
	}
	low, high, ok := parseRange(s)
	switch {
	case !ok:
		return f.Errorf(key, `%q are no ports: write the first and the last, like "28672-32767", or "none"`, s)
	case low%block != 0 || (high+1)%block != 0 || high < low:
		return f.Errorf(key, "ports %d to %d: a leg takes %d ports in packet mode, so the first must be a multiple of %d and the last one less than a multiple", low, high, block, block)
	case low <= first:
		return f.Errorf(key, "ports %d to %d leave none for sockets: they must begin above the first session port, %d", low, high, first)
	case high > last || last-high >= block:
		return f.Errorf(key, "ports %d to %d are not the upper end of the session ports, %d to %d", low, high, first, last)
	}
	c.PacketFirst, c.PacketLast = uint16(low), uint16(high)
	return nil
}

// parseRange takes two ports as "28672-32767", and in no other form.
func parseRange(s string) (first, last int, ok bool) {
	a, b, _ := strings.Cut(s, "-")
	low, err1 := strconv.ParseUint(a, 10, 16)
	high, err2 := strconv.ParseUint(b, 10, 16)
	return int(low), int(high), err1 == nil && err2 == nil && s == fmt.Sprintf("%d-%d", low, high)
}

// checkPlane checks what is about the kernel data planes.
func (c *Config) checkPlane(f *conffile.File) error {
	if modes := []string{ModeAuto, ModeXDP, ModeTC, ModeXDPGeneric, ModeUserSpace}; !slices.Contains(modes, c.Mode) {
		return f.Errorf("mode", "mode %q: use auto, xdp, tc, xdp-generic or userspace", c.Mode)
	}
	if n := len(c.Interfaces); n > maxInterfaces {
		return f.Errorf("interfaces", "%d interfaces: at most %d are possible", n, maxInterfaces)
	}
	for i, name := range c.Interfaces {
		if name == "" || len(name) > maxInterfaceName || name == "." || name == ".." || strings.ContainsFunc(name, notOfInterface) {
			return f.Errorf(at("interfaces", i), "%q is not the name of an interface, like eth0: see ip link", name)
		}
		if slices.Contains(c.Interfaces[:i], name) {
			return f.Errorf(at("interfaces", i), "interface %q is named twice", name)
		}
	}
	return nil
}

// notOfInterface reports whether Linux allows r in no name of an interface.
func notOfInterface(r rune) bool { return r == '/' || r == ':' || r <= ' ' || r == 0x7f }

func at(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
