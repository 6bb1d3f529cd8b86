// Package config reads the server's configuration file, and writes those
// that init makes.
package config

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics/scrape"
	"github.com/netport/netport/server/internal/ca"
)

// Default is where the server's configuration is looked for.
const Default = "/etc/netport/server/config.toml"

// Prefix is what the variables of the environment begin with that stand for keys.
const Prefix = "NETPORT_SERVER_"

// The names of the files that init makes in one folder.
const (
	ConfigFile = "config.toml"
	PolicyFile = "policy.toml"
	StateFile  = "state.db"
)

// Config is a checked configuration. Paths are absolute or relative to the
// folder of this process.
type Config struct {
	File   string
	Domain string
	// Address is what portals and relays are told to dial: HOST:PORT.
	Address string
	Listen  []string
	// ListenUDP is where those are served whose network shuts TCP: as in Listen, unless the
	// configuration names others (UDPNamed).
	ListenUDP []string
	UDPNamed  bool
	// HandOver is the socket at which a relay on this machine takes the connections that are
	// for a relay; empty: there is none. Live has what holds now.
	HandOver string
	// Servers are those that portals are told of: HOST or HOST:PORT each.
	Servers []string

	Certificate, Key, CA, StampKey string

	// PolicyKey is the file of the policy key; empty in strict mode: then PolicyPublic
	// is its public half, and the secret one is elsewhere.
	PolicyKey    string
	PolicyPublic ed25519.PublicKey

	// CAKey is the built-in CA's key; empty: no certificate is issued with it.
	CAKey string
	// CAPassphrase is the file of the passphrase that encrypts CA keys; empty: they
	// are not encrypted.
	CAPassphrase string
	// CACommand issues certificates in place of the built-in CA; empty: there is none.
	CACommand []string
	// AcceptElsewhere lets portals enrol by certificates that were issued elsewhere,
	// under a trusted authority.
	AcceptElsewhere bool
	// CertificateLife is how long the certificates last that are issued here.
	CertificateLife time.Duration
	// RenewAfterExpiry is how long ago a certificate may have ended that is renewed.
	RenewAfterExpiry time.Duration

	Policy  string // the policy to begin with
	State   string // folder of state.db and the audit files
	Socket  string
	Log     command.Log
	Metrics scrape.Address // zero: they are not served

	SessionsPerPortal int

	written conffile.Values
	live    atomic.Pointer[Live]
}

// Live is what may change while the server runs.
type Live struct {
	CertificateLife, RenewAfterExpiry time.Duration
	HandOver                          string
}

// Live returns what holds now.
func (c *Config) Live() Live {
	if l := c.live.Load(); l != nil {
		return *l
	}
	return Live{c.CertificateLife, c.RenewAfterExpiry, c.HandOver}
}

// Take has Live return what another configuration says.
func (c *Config) Take(other *Config) {
	l := other.Live()
	c.live.Store(&l)
}

// LiveKeys are the keys that need no restart.
var LiveKeys = []string{"hand_over", "certificate_life", "renew_after_expiry", "sessions_per_portal", "log_level", "log_format"}

// Written returns the values of all keys.
func (c *Config) Written() conffile.Values { return c.written }

// raw is the file as it is written.
type raw struct {
	Domain            string   `toml:"domain"`
	Address           string   `toml:"address"`
	Listen            []string `toml:"listen"`
	ListenUDP         []string `toml:"listen_udp"`
	HandOver          string   `toml:"hand_over"`
	Servers           []string `toml:"servers"`
	Certificate       string   `toml:"certificate"`
	Key               string   `toml:"key"`
	CA                string   `toml:"ca"`
	CAKey             string   `toml:"ca_key"`
	PolicyKey         string   `toml:"policy_key"`
	StampKey          string   `toml:"stamp_key"`
	Policy            string   `toml:"policy"`
	State             string   `toml:"state"`
	Socket            string   `toml:"socket"`
	LogLevel          string   `toml:"log_level"`
	LogFormat         string   `toml:"log_format"`
	Metrics           string   `toml:"metrics"`
	CAPassphrase      string   `toml:"ca_passphrase_file"`
	CACommand         []string `toml:"ca_command"`
	AcceptElsewhere   bool     `toml:"accept_issued_elsewhere"`
	CertificateLife   string   `toml:"certificate_life"`
	RenewAfterExpiry  string   `toml:"renew_after_expiry"`
	SessionsPerPortal int      `toml:"sessions_per_portal"`
}

// The limits of sessions_per_portal.
const (
	defaultSessions = 1000
	maxSessions     = 100_000
)

func defaults() raw {
	return raw{
		Certificate: "cert.pem", Key: "key.pem", CA: "ca.pem", CAKey: "ca.key",
		PolicyKey: "policy.key", StampKey: "stamp.key", Policy: PolicyFile,
		State: ".", Socket: "server.sock", LogLevel: "info", LogFormat: command.LogText,
		CertificateLife: "30d", RenewAfterExpiry: "90d", SessionsPerPortal: defaultSessions,
	}
}

// Help tells of the variables of the environment that stand for keys.
func Help() string { return conffile.Environment{Prefix: Prefix}.Help(defaults()) }

// Load reads and checks a configuration file, and what the environment says beside it.
func Load(file string) (*Config, error) {
	r := defaults()
	f, err := conffile.LoadWith(file, Default, conffile.Environment{Prefix: Prefix, List: os.Environ()}, &r)
	if err != nil {
		return nil, err
	}
	written := conffile.ValuesOf(r)
	if err := check(f, &r); err != nil {
		return nil, err
	}
	life, err := ca.ParseLife(r.CertificateLife)
	if err != nil {
		return nil, f.Errorf("certificate_life", "certificate_life: %v", err)
	}
	late, err := conffile.ParseDuration(r.RenewAfterExpiry)
	if err != nil {
		return nil, f.Errorf("renew_after_expiry", "renew_after_expiry: %v", err)
	}
	address, err := scrape.ParseAddress(r.Metrics)
	if err != nil {
		return nil, f.Errorf("metrics", "%v", err)
	}
	if len(r.CACommand) > 0 && strings.Contains(r.CACommand[0], "/") {
		r.CACommand = append([]string{f.Path(r.CACommand[0])}, r.CACommand[1:]...)
	}
	policyKey, public := f.Path(r.PolicyKey), ed25519.PublicKey(nil)
	if strings.HasPrefix(r.PolicyKey, "ed25519:") {
		policyKey = ""
		if public, err = grant.ParseKey(r.PolicyKey); err != nil {
			return nil, f.Errorf("policy_key", "policy_key: %v", err)
		}
	}
	if len(r.Servers) == 0 {
		r.Servers = []string{r.Address}
	}
	udpNamed := r.ListenUDP != nil
	if !udpNamed {
		r.ListenUDP = r.Listen
	}
	return &Config{
		File: file, Domain: r.Domain, Address: r.Address, Listen: r.Listen, ListenUDP: r.ListenUDP, UDPNamed: udpNamed, HandOver: f.Path(r.HandOver), Servers: r.Servers,
		Certificate: f.Path(r.Certificate), Key: f.Path(r.Key), CA: f.Path(r.CA),
		CAKey: f.Path(r.CAKey), CAPassphrase: f.Path(r.CAPassphrase), CACommand: r.CACommand, AcceptElsewhere: r.AcceptElsewhere,
		CertificateLife: life, RenewAfterExpiry: late,
		PolicyKey: policyKey, PolicyPublic: public, StampKey: f.Path(r.StampKey),
		Policy: f.Path(r.Policy), State: f.Path(r.State), Socket: f.Path(r.Socket), Log: command.Log{Level: r.LogLevel, Format: r.LogFormat}, Metrics: address,
		SessionsPerPortal: r.SessionsPerPortal, written: written,
	}, nil
}

func check(f *conffile.File, r *raw) error {
	if err := identity.CheckName(r.Domain); err != nil {
		return f.Errorf("domain", "domain: %v", err)
	}
	if host, _, err := SplitAddress(r.Address); err != nil {
		return f.Errorf("address", "address: %v", err)
	} else if host == "" {
		return f.Errorf("address", "address: portals need a host to dial: write \"HOST:PORT\"")
	}
	if len(r.Listen) == 0 {
		return f.Errorf("listen", "listen: at least one address is needed, as in [\":443\"]")
	}
	for i, l := range r.Listen {
		if _, _, err := SplitAddress(l); err != nil {
			return f.Errorf(fmt.Sprintf("listen[%d]", i), "listen: %v", err)
		}
	}
	if err := local.CheckPath(f.Path(r.HandOver)); err != nil {
		return f.Errorf("hand_over", "hand_over: %v", err)
	}
	for i, l := range r.ListenUDP {
		if _, _, err := SplitAddress(l); err != nil {
			return f.Errorf(fmt.Sprintf("listen_udp[%d]", i), "listen_udp: %v", err)
		}
	}
	if len(r.Servers) > 0 { // else portals are told of Address
		if err := control.CheckServers(r.Servers, f.Errorf); err != nil {
			return err
		}
	}
	log := command.Log{Level: r.LogLevel, Format: r.LogFormat}
	if err := log.CheckLevel(); err != nil {
		return f.Errorf("log_level", "%v", err)
	}
	if err := log.CheckFormat(); err != nil {
		return f.Errorf("log_format", "%v", err)
	}
	if len(r.CACommand) > 0 && r.CACommand[0] == "" {
		return f.Errorf("ca_command", "ca_command: the first part is the program to run")
	}
	if r.SessionsPerPortal < 1 || r.SessionsPerPortal > maxSessions {
		return f.Errorf("sessions_per_portal", "sessions_per_portal is 1 to %d", maxSessions)
	}
	return nil
}

// StateFile returns the path of the store.
func (c *Config) StateFile() string { return filepath.Join(c.State, StateFile) }

// SplitAddress reads HOST:PORT with a port from 1 to 65535; HOST may be empty.
func SplitAddress(s string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT (IPv6 in brackets)", s)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", digits)
	}
	return host, int(n), checkHost(host)
}

func checkHost(host string) error {
	if host == "" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return fmt.Errorf("%q: an address with a zone means nothing on another machine", host)
		}
		return nil
	}
	if err := identity.CheckName(host); err != nil || isNumber(host[strings.LastIndexByte(host, '.')+1:]) {
		return fmt.Errorf("%q is neither an IP address nor a DNS name in lower case", host)
	}
	return nil
}

func isNumber(label string) bool { return label == "" || label[0] >= '0' && label[0] <= '9' }

// ParseAddress reads the --address of init: HOST or HOST:PORT, port 443 where
// none is given. listen is the address to listen on for it: every address of
// the machine, and loopback alone if HOST is a loopback address.
func ParseAddress(s string) (address, listen string, err error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		s = net.JoinHostPort(a.String(), "443")
	} else if !strings.Contains(s, ":") {
		s += ":443"
	}
	host, port, err := SplitAddress(s)
	if err != nil {
		return "", "", err
	}
	if host == "" {
		return "", "", fmt.Errorf("%q has no host", s)
	}
	address = net.JoinHostPort(host, strconv.Itoa(port))
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		return address, address, nil
	}
	return address, ":" + strconv.Itoa(port), nil
}
