package config

import (
	_ "embed" // the reference file
	"fmt"
	"strconv"
	"strings"
)

//go:embed reference.toml
var reference string

// Server returns the configuration file that init makes, which is the reference with its
// values; policyKey is a file or, in strict mode, a public key, and caKey a file or, in
// strict mode, empty.
func Server(domain, address, listen, policyKey, caKey string) []byte {
	text := reference
	for key, value := range map[string]string{"domain": domain, "address": address, "ca_key": caKey, "policy_key": policyKey} {
		text = set(text, key, strconv.Quote(value))
	}
	return []byte(set(text, "listen", "["+strconv.Quote(listen)+"]"))
}

// set gives a key of the reference another value.
func set(text, key, value string) string {
	before, rest, _ := strings.Cut(text, "\n"+key+" = ")
	_, after, _ := strings.Cut(rest, "\n")
	return before + "\n" + key + " = " + value + "\n" + after
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
