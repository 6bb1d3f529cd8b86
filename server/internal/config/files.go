package config

import "fmt"

// Server returns the configuration file that init makes; policyKey is a file or, in
// strict mode, a public key, and caKey a file or, in strict mode, empty.
func Server(domain, address, listen, policyKey, caKey string) []byte {
	return fmt.Appendf(nil, `# The configuration of netport-server. Paths are relative to this file.

# The domain of all names here: spiffe://DOMAIN/portal/NAME. It stands in every
# certificate and cannot be changed.
domain = %q

# Where portals and relays find this server (written into what "issue" makes),
# and where it listens.
address = %q
listen = [%q]

# The servers that portals are told of and remember, beside those of their own
# configuration: HOST or HOST:PORT. Without it: the address above.
# servers = ["netport.example.org", "192.0.2.10:443"]

# What it proves itself with.
certificate = "cert.pem"
key = "key.pem"

# The CA certificates to begin with, when the server is started first. After that the
# state has them: "ca status", "ca roll", "ca install", "ca trust" and "ca drop".
ca = "ca.pem"

# The key of the built-in CA, which makes the identities of portals and relays. It
# may lie in another folder, and be encrypted by a passphrase (one line in a file).
# "" if there is none here: then who joins or renews waits until its certificate was
# signed where the key is (netport-server ca pending, ca sign, ca install).
ca_key = %q
# ca_passphrase_file = "/run/credentials/netport/ca"

# A program that issues certificates in place of the built-in CA: it gets the
# request (PEM) on its standard input, NETPORT_URI, NETPORT_ROLE, NETPORT_NAME and
# NETPORT_LIFE in its environment, and writes the chain (PEM).
# ca_command = ["/usr/local/bin/sign-netport"]

# Portals may come with certificates that another CA made (SPIRE, step-ca, Vault),
# if "ca" trusts it: the name in the certificate enrols itself. With ca_key = "" none waits
# for "ca sign" then: they all get theirs from that CA.
# accept_issued_elsewhere = true

# How long certificates last: "10m", "12h", "30d", "1y". Portals and relays renew
# theirs by themselves when two thirds are over. One that has ended while its
# device slept is renewed all the same if that was not longer ago than this.
certificate_life = "30d"
renew_after_expiry = "90d"

# The key that signs permissions, and the one that stamps them fresh for a day.
# As long as the policy key is here, whoever takes over this server can grant
# what he likes. Strict mode: the public key itself stands here ("ed25519:..."), the
# secret one is on another machine, and so are policies signed
# (netport-server policy request, sign, install).
policy_key = %q
stamp_key = "stamp.key"

# The policy to begin with, until the first "policy apply".
policy = "policy.toml"

# The folder of the state (state.db) and of the audit files (audit.log).
state = "."

# The socket over which the other commands talk to "run".
socket = "server.sock"

# Where Prometheus, or curl, asks for metrics (GET /metrics): on a loopback port, which
# every user of this machine can read, or on a Unix socket, which only this daemon's user
# and root can. Without it: nowhere.
# metrics = "127.0.0.1:9400"

# debug, info, warn or error; and as "text" (key=value) or "json" (an object a line).
# What systemd runs tells its journal the level of each line.
log_level  = "info"
log_format = "text"

# The most sessions that one portal may have part in at once.
sessions_per_portal = 1000
`, domain, address, listen, caKey, policyKey)
}

// Policy returns the policy file that init makes: an example that denies all.
func Policy(domain string) []byte {
	return fmt.Appendf(nil, `# Who may reach what. Nothing is allowed that is not written here.
# Check it with "netport-server policy check", see what it would change with "netport-server
# policy diff", put it in force with "netport-server policy apply".
domain = %q

# [groups]
# engineers = ["laptop-ann", "laptop-bo"]

# [[forward]]
# name = "plc-web"
# from = "engineers tcp://127.0.0.1:8080"   # portal or group, and where it listens
# to   = "factory-1 tcp://10.0.0.5:80"      # portal, and what it dials

# [[forward]]
# name = "history"                          # the second where the first cannot be reached
# from = "engineers tcp://127.0.0.1:5432"
# to   = ["factory-1 tcp://db.plant.lan:5432", "factory-2 tcp://db.plant.lan:5432"]
# rate = "10MB/s"                           # each way; for each portal on its own
# streams = 20                              # at the same time
# month = "50GB"                            # both ways together, in a month of UTC
# direct = "never"                          # by relays only; "only": by none

# [[forward]]
# name = "robots"                           # port 8000 leads to 9000, 8009 to 9009
# from = "laptop-ann tcp://192.168.7.1:8000-8009"
# to   = "factory-1 tcp://10.0.0.5:9000-9009"
# clients = ["192.168.7.0/24"]              # who may connect to the laptop

# [[forward]]
# name = "plc-snmp"
# from = "laptop-ann udp://127.0.0.1:1161"
# to   = "factory-1 udp://10.0.0.5:161"
# until = 2027-01-31T18:00:00Z
# hours = ["mon-fri 08:00-18:00", "sat 22:00-06:00"]
# zone  = "Europe/Berlin"                   # UTC if left out

# [[forward]]
# name = "shell"                            # netport-portal connect factory-1 tcp://127.0.0.1:22
# from = "engineers stdio:"
# to   = "factory-1 tcp://127.0.0.1:22"
# on_request = "8h"                         # grants nothing until somebody says
#                                           # netport-server allow shell --for 2h --by ann

# [[forward]]
# name = "web"
# from = "laptop-bo unix:///run/user/1000/web.sock"
# to   = "factory-3 tcp://127.0.0.1:8000"
# proxy_protocol = 2                        # tells the target who the client is
# relay = "relay-1"                         # its portals meet there and nowhere else; it
#                                           # holds for all forwards between these two

# A policy whose own tests fail is not applied. A test may name a time and a client, or that
# a forward on request was allowed.
# [[test]]
# allow = "laptop-ann tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
# [[test]]
# deny = "laptop-cy tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
# [[test]]
# deny = "laptop-ann udp://127.0.0.1:1161 -> factory-1 udp://10.0.0.5:161"
# at = 2026-11-22T10:00:00+01:00            # a Sunday
# [[test]]
# allow = "laptop-ann tcp://192.168.7.1:8009 -> factory-1 tcp://10.0.0.5:9009"
# client = "192.168.7.9"
# [[test]]
# allow = "laptop-bo stdio: -> factory-1 tcp://127.0.0.1:22"
# opened = true
`, domain)
}
