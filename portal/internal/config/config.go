// Package config reads the configuration file of a portal. reference.toml
// beside it shows every key.
package config

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/keystore/tpm"
	"github.com/netport/netport/portal/internal/users"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/proxy"
)

// Prefix is what the variables of the environment begin with that stand for keys.
const Prefix = "NETPORT_PORTAL_"

const (
	maxRules = 4096
	maxUsers = 1024

	minLinger = time.Second
	maxLinger = 24 * time.Hour
	// maxDrain is below the minute and a half after which service managers
	// kill what they stop.
	maxDrain = time.Minute
)

// Config is a checked configuration. Its file names are absolute or relative
// to the working directory, as the name of the file was.
type Config struct {
	Servers     []string // "host" or "host:port"
	Proxy       *proxy.Settings
	Certificate string
	Key         string
	TPM         string // device file or socket
	CA          string
	PolicyKey   ed25519.PublicKey
	RenewKey    bool   // renewals are with a new key
	State       string // folder
	Socket      string
	Log         command.Log
	MetricsFile string        // that metrics are written to; empty: none
	Direct      bool          // direct paths to other portals are looked for
	PortMapping bool          // and the router is asked to map ports for them
	LAN         bool          // other portals are looked for on the local network while the server is away; never without Direct
	Linger      time.Duration // how long forwarded connections wait for a way back
	Drain       time.Duration // how long they may finish when the portal stops
	Dial        allow.List
	Listen      allow.List
	Users       users.List // who may connect to what it listens at

	written conffile.Values
}

// Written returns the values of all keys.
func (c Config) Written() conffile.Values { return c.written }

// file is the configuration as it is written.
type file struct {
	Servers     []string `toml:"servers"`
	Proxy       string   `toml:"proxy"`
	Password    string   `toml:"proxy_password_file"`
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
	TPM         string   `toml:"tpm"`
	CA          string   `toml:"ca"`
	PolicyKey   string   `toml:"policy_key"`
	RenewKey    bool     `toml:"renew_key"`
	State       string   `toml:"state"`
	Socket      string   `toml:"socket"`
	LogLevel    string   `toml:"log_level"`
	LogFormat   string   `toml:"log_format"`
	MetricsFile string   `toml:"metrics_file"`
	Direct      bool     `toml:"direct"`
	PortMapping bool     `toml:"port_mapping"`
	LAN         bool     `toml:"lan"`
	Linger      string   `toml:"linger"`
	Drain       string   `toml:"drain"`
	Dial        list     `toml:"dial"`
	Listen      listen   `toml:"listen"`
}

type list struct {
	Allow []string `toml:"allow"`
}

type listen struct {
	Allow []string `toml:"allow"`
	Users []any    `toml:"users"`
}

// LiveKeys are the keys that need no restart.
var LiveKeys = []string{"log_level", "log_format", "linger", "drain", "dial.allow", "listen.allow", "listen.users"}

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
	return file{Certificate: "cert.pem", Key: "key.pem", TPM: tpm.Device, CA: "ca.pem", State: "state", LogLevel: "info", LogFormat: command.LogText, Direct: true, PortMapping: true, Linger: "2m", Drain: "10s"}
}

func check(f *conffile.File, raw file) (Config, error) {
	c := Config{
		Servers:     raw.Servers,
		Certificate: f.Path(raw.Certificate), Key: f.Path(raw.Key), TPM: f.Path(raw.TPM), CA: f.Path(raw.CA),
		RenewKey: raw.RenewKey, Direct: raw.Direct, PortMapping: raw.PortMapping, LAN: raw.LAN, State: f.Path(raw.State), Socket: f.Path(raw.Socket), MetricsFile: f.Path(raw.MetricsFile),
		Log: command.Log{Level: raw.LogLevel, Format: raw.LogFormat}, written: conffile.ValuesOf(raw),
	}
	if err := control.CheckServers(raw.Servers, f.Errorf); err != nil {
		return Config{}, err
	}
	var err error
	if c.Proxy, err = proxy.Load(raw.Proxy, f.Path(raw.Password)); err != nil {
		return Config{}, f.Errorf("proxy", "%v", err)
	}
	for _, p := range []struct{ key, path string }{
		{"certificate", c.Certificate}, {"key", c.Key}, {"tpm", c.TPM}, {"ca", c.CA}, {"state", c.State},
	} {
		if p.path == "" {
			return Config{}, f.Errorf(p.key, "key %q is empty: name a file or leave the key out", p.key)
		}
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.State, "portal.sock")
	}
	if err := c.Log.CheckLevel(); err != nil {
		return Config{}, f.Errorf("log_level", "%v", err)
	}
	if err := c.Log.CheckFormat(); err != nil {
		return Config{}, f.Errorf("log_format", "%v", err)
	}
	if c.MetricsFile != "" && !strings.HasSuffix(c.MetricsFile, ".prom") {
		return Config{}, f.Errorf("metrics_file", "metrics_file %q: a node exporter reads only files that end with .prom", raw.MetricsFile)
	}
	if c.LAN && !c.Direct {
		return Config{}, f.Errorf("lan", "lan = true needs direct = true: what goes to a neighbour goes directly")
	}
	if c.Linger, err = duration(f, "linger", raw.Linger, minLinger, maxLinger); err != nil {
		return Config{}, err
	}
	if c.Drain, err = duration(f, "drain", raw.Drain, 0, maxDrain); err != nil {
		return Config{}, err
	}
	if raw.PolicyKey == "" {
		return Config{}, f.Errorf("policy_key", `no policy key: write policy_key = "ed25519:..." as "netport-server issue portal" prints it`)
	}
	if c.PolicyKey, err = grant.ParseKey(raw.PolicyKey); err != nil {
		return Config{}, f.Errorf("policy_key", "%v", err)
	}
	if c.Dial, err = rules(f, "dial.allow", raw.Dial.Allow); err != nil {
		return Config{}, err
	}
	if c.Listen, err = rules(f, "listen.allow", raw.Listen.Allow); err != nil {
		return Config{}, err
	}
	if c.Users, err = named(f, "listen.users", raw.Listen.Users); err != nil {
		return Config{}, err
	}
	return c, nil
}

// duration reads a duration that is within bounds.
func duration(f *conffile.File, key, text string, low, high time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, f.Errorf(key, `%s %q is no duration: write it as "30s", "2m" or "1h"`, key, text)
	case d < low || d > high:
		return 0, f.Errorf(key, "%s %q: it must be from %v to %v", key, text, low, high)
	}
	return d, nil
}

func rules(f *conffile.File, key string, raw []string) (allow.List, error) {
	if !f.Has(key) {
		return allow.List{}, nil
	}
	if len(raw) > maxRules {
		return allow.List{}, f.Errorf(key, "%d rules: at most %d are possible", len(raw), maxRules)
	}
	var rr []allow.Rule
	for i, s := range raw {
		r, err := allow.Parse(s)
		if err != nil {
			return allow.List{}, f.Errorf(at(key, i), "%v", err)
		}
		rr = append(rr, r)
	}
	return allow.NewList(rr...), nil
}

// named reads a list of users.
func named(f *conffile.File, key string, raw []any) (users.List, error) {
	switch {
	case !f.Has(key):
		return users.List{}, nil
	case !users.Supported:
		return users.List{}, f.Errorf(key, "%s: this system (%s) does not tell which user connects, so nobody could be refused: leave the key out", key, runtime.GOOS)
	case len(raw) > maxUsers:
		return users.List{}, f.Errorf(key, "%d users: at most %d are possible", len(raw), maxUsers)
	}
	var ids []uint32
	for i, v := range raw {
		id, err := users.Parse(v)
		if err != nil {
			return users.List{}, f.Errorf(at(key, i), "%v", err)
		}
		ids = append(ids, id)
	}
	return users.NewList(ids...), nil
}

func at(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }
