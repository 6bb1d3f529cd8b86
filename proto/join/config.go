package join

import (
	"fmt"
	"strconv"
	"strings"
)

// Reach is how servers are reached.
type Reach struct {
	Servers      []string // "host" or "host:port"
	Proxy        string   // as the key "proxy" has it; empty: none
	PasswordFile string   // of the proxy; empty: none
}

// proxy returns the lines about the proxy.
func (r Reach) proxy() string {
	s := `# The proxy that everything outbound goes through: "http://USER@HOST:PORT" (CONNECT),
# "https://..." or "socks5://...", or "environment" (HTTPS_PROXY, NO_PROXY); and a file
# with its password, for the daemon's user alone.
`
	for _, line := range []struct{ key, value, example string }{
		{"proxy", r.Proxy, "http://proxy.example.org:3128"}, {"proxy_password_file", r.PasswordFile, "proxy.password"},
	} {
		if line.value == "" {
			s += "# " + line.key + " = " + strconv.Quote(line.example) + "\n"
		} else {
			s += line.key + " = " + strconv.Quote(line.value) + "\n"
		}
	}
	return s
}

func quoted(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = strconv.Quote(s)
	}
	return strings.Join(q, ", ")
}

// Portal returns the configuration of a new portal. tpm is the device of its TPM; empty:
// the usual one.
func Portal(reach Reach, policyKey, tpm string) []byte {
	device := `# tpm = "/dev/tpmrm0"`
	if tpm != "" {
		device = "tpm = " + strconv.Quote(tpm)
	}
	return fmt.Appendf(nil, `# The configuration of a portal. Paths are relative to this file.

# Where the server is, tried in turn.
servers = [%s]

%s
# Who this portal is, and whose certificates it believes. The key is for its
# owner alone.
certificate = "cert.pem"
key = "key.pem"
ca = "ca.pem"

# The TPM, for a key that is in one ("join --key tpm").
%s

# The key that signs permissions. No grant counts that another key signed,
# whatever the server says.
policy_key = %q

# The certificate is renewed in time by itself: with a new key each time?
renew_key = false

# A folder for the daemon alone, and the socket over which commands talk to it.
state = "state"
socket = "state/portal.sock"

# A file for the textfile collector of a Prometheus node exporter, written every 15
# seconds; "netport-portal metrics" prints the same.
# metrics_file = "/var/lib/netport/portal/metrics/netport.prom"

# debug, info, warn or error; and as "text" (key=value) or "json" (an object a line).
# What systemd runs tells its journal the level of each line.
log_level  = "info"
log_format = "text"

# How long forwarded connections wait for a way back when every carrier is lost:
# "1s" to "24h".
# linger = "2m"

# How long connections may finish when this portal is stopped; a second signal
# stops it at once.
# drain = "10s"

# The owner of this machine has the last word: with a list, the portal dials
# only what is on it, whatever it is granted.
# [dial]
# allow = ["tcp://10.0.0.5:80", "tcp://127.0.0.1:8000"]

# The same for where it listens.
# [listen]
# allow = ["tcp://127.0.0.1:8080"]
`, quoted(reach.Servers), reach.proxy(), device, policyKey)
}

// Admin returns the configuration of a new admin.
func Admin(reach Reach, policyKey string) []byte {
	return fmt.Appendf(nil, `# With this "netport-server COMMAND --admin FILE" works from this machine. Paths are
# relative to this file.

# Where the server is, tried in turn.
servers = [%s]

%s
# Who this admin is, and whose certificates count. The key is for its owner alone. The
# certificate is renewed in time by the commands themselves.
certificate = "cert.pem"
key = "key.pem"
ca = "ca.pem"

# The key that signs which CAs the domain trusts.
policy_key = %q

# A folder for what the commands keep: the CAs that are trusted now, and the time.
state = "state"
`, quoted(reach.Servers), reach.proxy(), policyKey)
}

// Relay returns the configuration of a new relay.
func Relay(reach Reach, policyKey string) []byte {
	return fmt.Appendf(nil, `# The configuration of a relay. Paths are relative to this file.

# Where the server is, tried in turn.
servers = [%s]

%s
# Who this relay is, and whose certificates it believes. The key is for its
# owner alone.
certificate = "cert.pem"
key = "key.pem"
ca = "ca.pem"

# The key that signs which CAs the domain trusts.
policy_key = %q

# The certificate is renewed in time by itself: with a new key each time?
renew_key = false

# A folder for the daemon alone.
state = "state"

# The socket over which commands talk to the daemon.
socket = "relay.sock"

# The addresses of this machine to listen on; all of them if none is named.
# addresses = ["192.0.2.7"]

# The ports of sessions. Open them in the firewall, for TCP and UDP. The upper
# ones are for TCP that the kernel forwards packet by packet: without
# packet_ports the upper third.
first_port = 20000
last_port = 32767
# packet_ports = "28672-32767"

# How packets are forwarded: auto, xdp, tc, xdp-generic or userspace.
mode = "auto"

# One port that all sessions can share as well; 0: none. Portals measure their
# round trips to this relay there, and meet there while the server is away. 3478 is
# the port of STUN (RFC 8489) and needs no rights; where networks let nothing but
# the Web out, 443 helps: where the server is on this machine, with take_over and the
# server's hand_over (their example files tell how). Open it in the firewall, for TCP and UDP.
shared_tcp_port = 3478
shared_udp_port = 3478

# Networks that no portal is served from, such as those of other relays.
# deny = ["198.51.100.16/28"]

# Serve portals on this machine too. Never to be set outside of demos and tests.
allow_loopback = false

# The most sessions at once: in all, and opened by one portal.
capacity = 4000
sessions_per_portal = 200

# Where Prometheus, or curl, asks for metrics (GET /metrics): on a loopback port, which
# every user of this machine can read, or on a Unix socket, which only this daemon's user
# and root can. Without it: nowhere.
# metrics = "127.0.0.1:9401"

# debug, info, warn or error; and as "text" (key=value) or "json" (an object a line).
# What systemd runs tells its journal the level of each line.
log_level  = "info"
log_format = "text"
`, quoted(reach.Servers), reach.proxy(), policyKey)
}
