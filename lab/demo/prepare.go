package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// The names of the demo's world.
const (
	domain     = "example.org"
	entryName  = "laptop"
	exitName   = "factory"
	webForward = "web"
	dnsForward = "names"
)

// The relays of the demo. Each has an address of its own, or they could not both
// have the port that portals share.
var (
	relays     = [2]string{"relay-1", "relay-2"}
	relayHosts = [2]string{"127.0.0.1", "127.0.0.2"}
)

// world is where the parts of the demo are: files, programs and addresses.
type world struct {
	dir string // the demo's own temporary directory
	bin string // the folder of the three Netport programs

	server  string // address of the control plane
	webFrom string // where the entry portal listens for the web server's clients
	dnsFrom string // and for the name server's
	webTo   string // where the web server listens
	dnsTo   string // where the name server listens
}

// program returns the path of a Netport program, by its role.
func (w *world) program(role string) string {
	return filepath.Join(w.bin, "netport-"+role)
}

// folder returns the folder of a daemon's files.
func (w *world) folder(name string) string {
	return filepath.Join(w.dir, name)
}

// config returns the configuration file of a daemon.
func (w *world) config(name string) string {
	return filepath.Join(w.dir, name, "config.toml")
}

// choosePorts picks the ports that the demo decides about itself: the familiar ones
// where they are free.
func (w *world) choosePorts() error {
	for _, choice := range []struct {
		network string
		wish    int
		addr    *string
	}{
		{"tcp", 8443, &w.server},
		{"tcp", 8080, &w.webFrom},
		{"udp", 1053, &w.dnsFrom},
	} {
		addr, err := freeAddress(choice.network, choice.wish)
		if err != nil {
			return fmt.Errorf("find a free %s port on loopback: %w", choice.network, err)
		}
		*choice.addr = addr
	}
	return nil
}

// freeAddress returns a loopback address that nobody listens on, with the wished
// port if that is free.
func freeAddress(network string, wish int) (string, error) {
	var err error
	for _, port := range []int{wish, 0} {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		if network == "tcp" {
			var ln net.Listener
			if ln, err = net.Listen(network, addr); err == nil {
				defer ln.Close()
				return ln.Addr().String(), nil
			}
			continue
		}
		var conn net.PacketConn
		if conn, err = net.ListenPacket(network, addr); err == nil {
			defer conn.Close()
			return conn.LocalAddr().String(), nil
		}
	}
	return "", err
}

// issueIdentities makes the CA and the server, and the identities and configuration
// files of both relays and both portals.
func (w *world) issueIdentities(ctx context.Context) error {
	server := w.program("server")
	commands := [][]string{
		{"init", "--dir", w.folder("server"), "--domain", domain, "--address", w.server},
		{"issue", "relay", relays[0], "--address", relayHosts[0], "--out", w.folder(relays[0]), "--config", w.config("server")},
		{"issue", "relay", relays[1], "--address", relayHosts[1], "--out", w.folder(relays[1]), "--config", w.config("server")},
		{"issue", "portal", entryName, "--out", w.folder(entryName), "--config", w.config("server")},
		{"issue", "portal", exitName, "--out", w.folder(exitName), "--config", w.config("server")},
	}
	for _, args := range commands {
		if _, err := run(ctx, server, args...); err != nil {
			return err
		}
	}
	return nil
}

// policy returns the policy of the demo: two forwards, and tests that show what is
// allowed and what is not.
func (w *world) policy() string {
	return fmt.Sprintf(`domain = %[1]q

[groups]
visitors = [%[2]q]

[[forward]]
name = %[4]q
from = "visitors tcp://%[6]s"
to   = "%[3]s tcp://%[8]s"

[[forward]]
name = %[5]q
from = "visitors udp://%[7]s"
to   = "%[3]s udp://%[9]s"

[[test]]
allow = "%[2]s tcp://%[6]s -> %[3]s tcp://%[8]s"

[[test]]
allow = "%[2]s udp://%[7]s -> %[3]s udp://%[9]s"

[[test]]
deny = "%[3]s tcp://%[6]s -> %[2]s tcp://%[8]s"
`, domain, entryName, exitName, webForward, dnsForward, w.webFrom, w.dnsFrom, w.webTo, w.dnsTo)
}

// applied is what the server says about a policy that it took.
type applied struct {
	Forwards int    `json:"forwards"`
	Tests    int    `json:"tests"`
	Version  uint64 `json:"version"`
}

// applyPolicy writes the policy, checks and tests it, and makes it the server's.
func (w *world) applyPolicy(ctx context.Context) (applied, error) {
	file := filepath.Join(w.dir, "policy.toml")
	if err := os.WriteFile(file, []byte(w.policy()), 0o600); err != nil {
		return applied{}, fmt.Errorf("write the policy: %w", err)
	}
	var result applied
	for _, step := range []string{"check", "test", "apply"} {
		if err := ask(ctx, &result, w.program("server"), "policy", step, file, "--config", w.config("server")); err != nil {
			return applied{}, err
		}
	}
	return result, nil
}

// onLoopback has a relay listen at host alone and forward to loopback addresses, by
// its configuration file as issue made it. Nobody should want that but a demo on
// one machine.
func onLoopback(file, host string) error {
	const made, wanted = "\nallow_loopback = false\n", "\nallow_loopback = true\n"
	config, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("let the relay forward to loopback: %w", err)
	}
	if strings.Count(string(config), made) != 1 {
		return fmt.Errorf("let the relay forward to loopback: %s has no line %q", file, strings.TrimSpace(made))
	}
	config = []byte(strings.Replace(string(config), made, fmt.Sprintf("%saddresses = [%q]\n", wanted, host), 1))
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return fmt.Errorf("let the relay forward to loopback: %w", err)
	}
	return nil
}

// overRelays has a portal look for no direct paths: on one machine there always is one, and
// the demo shows what relays do.
func overRelays(file string) error {
	config, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append([]byte("direct = false\n"), config...), 0o600)
	}
	if err != nil {
		return fmt.Errorf("have the portal use relays alone: %w", err)
	}
	return nil
}
