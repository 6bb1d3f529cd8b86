package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
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

// sharedPort is the port of a relay that all sessions share, where it is free.
const sharedPort = 3478

// The relays of the demo. Each has an address of its own, or they could not both
// have that port.
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
		addr, err := freeAddress(choice.network, "127.0.0.1", choice.wish)
		if err != nil {
			return fmt.Errorf("find a free %s port on loopback: %w", choice.network, err)
		}
		*choice.addr = addr
	}
	return nil
}

// freeAddress returns an address of a host of loopback that nobody listens on, with the
// wished port if that is free.
func freeAddress(network, host string, wish int) (string, error) {
	var err error
	for _, port := range []int{wish, 0} {
		addr := fmt.Sprintf("%s:%d", host, port)
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

// onLoopback has a relay listen at host alone, on ports that are free there, and forward to
// loopback addresses. Nobody should want that but a demo on one machine.
func onLoopback(file, host string) error {
	lines := []string{"allow_loopback = true", fmt.Sprintf("addresses = [%q]", host)}
	for _, network := range []string{"tcp", "udp"} {
		address, err := freeAddress(network, host, sharedPort)
		if err != nil {
			return fmt.Errorf("find a free %s port for the relay: %w", network, err)
		}
		port := address[strings.LastIndexByte(address, ':')+1:]
		lines = append(lines, fmt.Sprintf("shared_%s_port = %s", network, port))
	}
	return setLines(file, lines...)
}

// overRelays has a portal look for no direct paths: on one machine there always is one, and
// the demo shows what relays do.
func overRelays(file string) error { return setLines(file, "direct = false") }

// setLines puts lines "key = value" into a configuration file, in the place of those with
// the same keys, or before all tables.
func setLines(file string, lines ...string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("configure for one machine: %w", err)
	}
	config := string(b)
	for _, line := range lines {
		key, _, _ := strings.Cut(line, " ")
		config = regexp.MustCompile(`(?m)^`+key+` = .*\n`).ReplaceAllLiteralString(config, "")
	}
	config = strings.Join(lines, "\n") + "\n" + config
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("configure for one machine: %w", err)
	}
	return nil
}
