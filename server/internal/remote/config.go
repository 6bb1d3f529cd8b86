package remote

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/proxy"
)

// DefaultFile is where an admin's configuration is looked for, in the home of the user.
const DefaultFile = "~/.config/netport/admin/admin.toml"

// Expand returns a path with the home of the user in the place of "~".
func Expand(file string) (string, error) {
	below, ok := strings.CutPrefix(file, "~/")
	if !ok {
		return file, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find %s: %w; name the admin's file with --admin", file, err)
	}
	return filepath.Join(home, below), nil
}

// config is the file of an admin, checked.
type config struct {
	servers              []string // HOST or HOST:PORT each
	proxy                *proxy.Settings
	certificate, key, ca string
	state                string
	policy               ed25519.PublicKey
}

// rawConfig is the file as it is written.
type rawConfig struct {
	Servers     []string `toml:"servers"`
	Proxy       string   `toml:"proxy"`
	Password    string   `toml:"proxy_password_file"`
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
	CA          string   `toml:"ca"`
	PolicyKey   string   `toml:"policy_key"`
	State       string   `toml:"state"`
}

func load(file string) (config, error) {
	raw := rawConfig{Certificate: "cert.pem", Key: "key.pem", CA: "ca.pem", State: "state"}
	f, err := conffile.Load(file, &raw)
	if err != nil {
		return config{}, err
	}
	c := config{
		servers:     raw.Servers,
		certificate: f.Path(raw.Certificate), key: f.Path(raw.Key), ca: f.Path(raw.CA), state: f.Path(raw.State),
	}
	if err := control.CheckServers(raw.Servers, f.Errorf); err != nil {
		return config{}, err
	}
	if c.proxy, err = proxy.Load(raw.Proxy, f.Path(raw.Password)); err != nil {
		return config{}, f.Errorf("proxy", "%v", err)
	}
	if c.policy, err = grant.ParseKey(raw.PolicyKey); err != nil {
		return config{}, f.Errorf("policy_key", "policy_key: %v", err)
	}
	return c, nil
}
