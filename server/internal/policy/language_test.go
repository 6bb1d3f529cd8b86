package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
)

// complete says everything that can be said of a forward.
const complete = `domain = "example.org"

[groups]
engineers = ["ann", "bo"]

[[forward]]
name = "web"
from = "engineers tcp://192.168.7.1:8000-8002"
to = ["plant tcp://10.0.0.5:9000-9002", "spare tcp://10.0.1.5:9000-9002"]
until = 2027-01-31T18:00:00Z
hours = ["mon-fri 08:00-18:00", "sat,sun 22:00-06:00"]
zone = "CET-1CEST,M3.5.0,M10.5.0/3"
proxy_protocol = 2
rate = "10MB/s"
streams = 20
month = "50GiB"
clients = ["192.168.7.0/24", "2001:db8::7"]
direct = "never"
relay = "relay-1"

[[forward]]
name = "shell"
from = "ann stdio:"
to = "plant tcp://127.0.0.1:22"
on_request = "8h"
`

func TestEverythingSaidOfAForwardIsInItsGrants(t *testing.T) {
	p := parse(t, complete)
	enrolled := keys("ann", "bo", "plant", "spare")
	windows := []grant.Window{{Days: 0x1f, From: 480, Until: 1080}, {Days: 0x60, From: 1320, Until: 360}}
	hours, err := grant.NewHours("CET-1CEST,M3.5.0,M10.5.0/3", windows)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := grant.NewClients([]netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("2001:db8::7/128")})
	if err != nil {
		t.Fatal(err)
	}
	var want []grant.Permission
	for _, entry := range []string{"ann", "bo"} {
		for rank, exit := range []string{"plant", "spare"} {
			for n := range 3 {
				want = append(want, grant.Permission{
					Forward: "web", Entry: grant.Party{Name: entry, Key: enrolled[entry]}, Exit: grant.Party{Name: exit, Key: enrolled[exit]},
					Listen: endpoint.MustParse(fmt.Sprintf("tcp://192.168.7.1:%d", 8000+n)),
					Target: endpoint.MustParse(fmt.Sprintf("tcp://10.0.%d.5:%d", rank, 9000+n)),
					End:    time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC), Proxy: 2, Rank: uint8(rank),
					Terms: grant.Terms{Direct: grant.DirectNever, Rate: 10_000_000, Streams: 20, Month: 50 << 30, Clients: clients, Hours: hours},
				})
			}
		}
	}
	if d := cmp.Diff(want, p.Grants(enrolled, nil, now), cmp.AllowUnexported(endpoint.Endpoint{}, grant.Hours{}, grant.Clients{})); d != "" {
		t.Errorf("grants (-want +got):\n%s", d)
	}
	if got := p.Size(); got != len(want)+1 {
		t.Errorf("it comes to %d grants, want %d", got, len(want)+1)
	}
	said := []string{
		"until 2027-01-31T18:00:00Z", "hours mon-fri 08:00-18:00, sat,sun 22:00-06:00 CET-1CEST,M3.5.0,M10.5.0/3", "rate 10MB/s", "streams 20", "month 50GiB",
		"clients 192.168.7.0/24, 2001:db8::7/128", "direct never", "relay relay-1", "proxy_protocol 2",
	}
	if d := cmp.Diff(said, p.Forwards[0].Says()); d != "" {
		t.Errorf("said of it (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"on request for 8h"}, p.Forwards[1].Says()); d != "" {
		t.Errorf("said of the other (-want +got):\n%s", d)
	}
	if got := p.Pin("ann", "spare", now); got != "relay-1" {
		t.Errorf("ann and spare meet at %q", got)
	}
}

// B82, B90 and the contradictions: what is refused, where, and with which words.
func TestMistakesInTermsAreShownWhereTheyStand(t *testing.T) {
	say := func(lines ...string) string { return forward(append([]string{name, from, to}, lines...)...) }
	two := func(first, second string) string { // another forward between the same portals, the other way round
		return say(first) + "[[forward]]\nname = \"two\"\nfrom = \"plant tcp://127.0.0.1:81\"\nto = \"ann tcp://127.0.0.1:81\"\n" + second + "\n"
	}
	ranges := func(from, to string) string {
		return forward(name, `from = "ann tcp://127.0.0.1:`+from+`"`, `to = "plant tcp://10.0.0.5:`+to+`"`)
	}
	second := "[[forward]]\nname = \"two\"\nto = \"plant tcp://10.0.0.5:81\"\n"
	for _, c := range []struct{ what, text, want string }{
		{"rate without unit", say(`rate = "10"`), `policy.toml:6:8: forward "web": rate "10": write it per second, as in "10MB/s"`},
		{"rate without seconds", say(`rate = "10MB"`), `write it per second`},
		{"rate of a number", say(`rate = 10`), `policy.toml:6:8: key "forward.rate": a value of the wrong type`},
		{"rate of nothing", say(`rate = ""`), `policy.toml:6:8: forward "web": rate "": write it per second`},
		{"rate 0", say(`rate = "0MB/s"`), `rate: "0MB" is nothing: leave it out for no limit`},
		{"rate too low", say(`rate = "999B/s"`), `rate "999B/s": it is at least 1kB/s`},
		{"rate per hour", say(`rate = "10MB/h"`), `write it per second`},
		{"negative rate", say(`rate = "-1MB/s"`), `rate: "-1MB" is no size`},
		{"wrong case", say(`month = "1KB"`), `policy.toml:6:9: forward "web": month: "1KB": write the unit kB`},
		{"unknown unit", say(`month = "1KiBx"`), `month: "1KiBx": the units are B, kB, KiB, MB, MiB, GB, GiB, TB, TiB`},
		{"size without unit", say(`month = "10"`), `"10" has no unit: write 10MB, say`},
		{"fraction", say(`month = "1.5GB"`), `"1.5GB": the units are`},
		{"size of words", say(`month = "lots"`), `"lots" is no size`},
		{"endless size", say(`month = "99999999999999999999GB"`), `more than any limit can be`},
		{"size beyond all", say(`month = "2000000TB"`), `more than any limit can be`},
		{"exponent", say(`month = "1e9B"`), `"1e9B": the units are`},
		{"spaces", say(`month = " 1GB"`), `is no size`},

		{"no streams", say(`streams = 0`), `policy.toml:6:11: forward "web": streams is 1 to 4294967295: leave it out for no limit`},
		{"negative streams", say(`streams = -1`), `streams is 1 to`},
		{"streams beyond all", say(`streams = 4294967296`), `streams is 1 to`},
		{"streams a text", say(`streams = "20"`), `a value of the wrong type`},

		{"negative duration", say(`on_request = "-1s"`), `policy.toml:6:14: forward "web": on_request: "-1s" is no length of time`},
		{"endless duration", say(`on_request = "1e99h"`), `"1e99h" is no length of time`},
		{"duration without unit", say(`on_request = "10"`), `"10" is no length of time`},
		{"duration of a number", say(`on_request = 8`), `a value of the wrong type`},
		{"duration of nothing", say(`on_request = ""`), `on_request: "" is no length of time`},
		{"too short", say(`on_request = "59s"`), `on_request: "59s": it is 1m to 30d`},
		{"too long", say(`on_request = "31d"`), `on_request: "31d": it is 1m to 30d`},
		{"parts of seconds", say(`on_request = "90.5s"`), `on_request: "90.5s"`},

		{"hours of no day", say(`hours = "any 08:00-18:00"`), `policy.toml:6:9: forward "web": hours "any 08:00-18:00": "any" are no days: they are mon, tue, wed, thu, fri, sat, sun`},
		{"the second window", say(`hours = ["mon 08:00-18:00", "tue 8-18"]`), `policy.toml:6:29: forward "web": hours "tue 8-18": "8" is no time of the day`},
		{"upper case", say(`hours = "Mon 08:00-18:00"`), `"Mon" are no days`},
		{"a day twice", say(`hours = "mon-fri,wed 08:00-18:00"`), `"mon-fri,wed" names wed twice`},
		{"a day to itself", say(`hours = "mon-mon 08:00-18:00"`), `"mon-mon" is one day: write mon`},
		{"an open range of days", say(`hours = "mon- 08:00-18:00"`), `are no days`},
		{"no time", say(`hours = "mon-fri"`), `"mon" is no time of the day`},
		{"a time alone", say(`hours = "mon 08:00"`), `"08:00" is no time from and until`},
		{"one digit", say(`hours = "mon 8:00-18:00"`), `"8:00" is no time of the day: they are 00:00 to 24:00`},
		{"hour 25", say(`hours = "mon 08:00-25:00"`), `"25:00" is no time`},
		{"after midnight", say(`hours = "mon 08:00-24:01"`), `"24:01" is no time`},
		{"minute 60", say(`hours = "mon 08:60-18:00"`), `"08:60" is no time`},
		{"from the end", say(`hours = "mon 24:00-06:00"`), `a day begins at 00:00`},
		{"no length", say(`hours = "mon 08:00-08:00"`), `for whole days write 00:00-24:00`},
		{"am and pm", say(`hours = "mon 8am-6pm"`), `"8am" is no time`},
		{"seconds", say(`hours = "mon 08:00:00-18:00:00"`), `is no time of the day`},
		{"no window", say(`hours = []`), `policy.toml:6:1: forward "web": hours has 0 values: 1 to 64 are allowed`},
		{"65 windows", say(`hours = ["` + strings.Repeat(`08:00-18:00", "`, 64) + `08:00-18:00"]`), `hours has 65 values`},
		{"a window twice", say(`hours = ["mon 08:00-18:00", "mon 08:00-18:00"]`), `hours "mon 08:00-18:00" are named twice`},
		{"hours of numbers", say(`hours = [8, 18]`), `a value of the wrong type: write hours = ["mon-fri 08:00-18:00"]`},
		{"hours a number", say(`hours = 8`), `hours is a text or a list of texts`},
		{"hours a table", say(`hours = {mon = "08:00-18:00"}`), `hours is a text or a list of texts`},
		{"a zone without hours", say(`zone = "Europe/Berlin"`), `policy.toml:6:8: forward "web": a zone without hours says nothing`},
		{"unknown zone", say(`hours = "08:00-18:00"`, `zone = "Europe/Bonn"`), `policy.toml:7:8: forward "web": zone "Europe/Bonn"`},
		{"an empty zone", say(`hours = "08:00-18:00"`, `zone = ""`), `zone "" is unknown`},
		{"a path as zone", say(`hours = "08:00-18:00"`, `zone = "../../../etc/shadow"`), `zone "../../../etc/shadow" is unknown`},
		{"an absolute path as zone", say(`hours = "08:00-18:00"`, `zone = "/etc/localtime"`), `zone "/etc/localtime" is unknown`},
		{"a folder as zone", say(`hours = "08:00-18:00"`, `zone = "Europe"`), `zone "Europe"`},
		{"this machine's zone", say(`hours = "08:00-18:00"`, `zone = "Local"`), `zone "Local"`},

		{"prefix of 33 bits", say(`clients = ["10.0.0.0/33"]`), `policy.toml:6:12: forward "web": clients: "10.0.0.0/33" is no prefix`},
		{"host bits", say(`clients = "10.0.0.1/8"`), `policy.toml:6:11: forward "web": clients: 10.0.0.1/8 has bits set behind its length: write 10.0.0.0/8, or 10.0.0.1/32 for the one address`},
		{"octal client", say(`clients = "010.0.0.1"`), `"010.0.0.1" is no address and no prefix`},
		{"octal prefix", say(`clients = "010.0.0.0/8"`), `"010.0.0.0/8" is no prefix`},
		{"hex client", say(`clients = "0x7f.1"`), `"0x7f.1" is no address`},
		{"short client", say(`clients = "127.1"`), `"127.1" is no address`},
		{"short prefix", say(`clients = "10/8"`), `"10/8" is no prefix`},
		{"every client", say(`clients = "*"`), `"*" is no address`},
		{"a name", say(`clients = "ann.lan"`), `"ann.lan" is no address`},
		{"no client", say(`clients = []`), `clients has 0 values: 1 to 64 are allowed`},
		{"IPv4 in IPv6 clothes", say(`clients = "::ffff:10.0.0.0/104"`), `clients: `},
		{"a zone of an interface", say(`clients = "fe80::1%eth0"`), `"fe80::1%eth0" is no address`},
		{"another form", say(`clients = "2001:DB8::/32"`), `"2001:DB8::/32": write 2001:db8::/32`},
		{"a client twice", say(`clients = ["10.0.0.1", "10.0.0.1/32"]`), `10.0.0.1/32 is named twice`},
		{"clients of a socket", forward(name, `from = "ann unix:///s"`, to, `clients = "10.0.0.1"`), `clients of unix:///s have no addresses`},
		{"clients of standard input", forward(name, `from = "ann stdio:"`, to, `clients = "10.0.0.1"`), `clients of stdio: have no addresses`},

		{"direct", say(`direct = "always"`), `policy.toml:6:10: forward "web": direct is "only" (by no relay) or "never" (by relays only)`},
		{"direct true", say(`direct = true`), `a value of the wrong type`},
		{"no relay", say(`relay = ""`), `policy.toml:6:9: forward "web": relay`},
		{"direct both ways", two(`direct = "only"`, `direct = "never"`), `policy.toml:11:10: forward "two": direct is "only" between plant and ann for the forward "web": two portals are joined in one way`},
		{"two relays", two(`relay = "r1"`, `relay = "r2"`), `policy.toml:11:9: forward "two": plant and ann meet at the relay "r1" for the forward "web"`},

		{"ports 1-0", ranges("1-0", "1-2"), `policy.toml:4:8: forward "web": endpoint "tcp://127.0.0.1:0": port "0"`},
		{"ports 0-65535", ranges("0-65535", "1-2"), `port "0"`},
		{"all ports", ranges("1-65535", "1-65535"), `65535 ports: a range has at most 1024`},
		{"reversed", ranges("8009-8000", "1-2"), `the ports run backwards: write 8000-8009`},
		{"reversed target", ranges("8000-8001", "9001-9000"), `policy.toml:5:6: forward "web": endpoint "tcp://10.0.0.5:9001-9000": the ports run backwards`},
		{"one port", ranges("80-80", "80"), `a range of one port: write tcp://127.0.0.1:80`},
		{"unequal", ranges("8000-8009", "9000-9008"), `policy.toml:5:6: forward "web": from tcp://127.0.0.1:8000-8009 to tcp://10.0.0.5:9000-9008: 10 ports and 9`},
		{"a range to one port", ranges("8000-8009", "80"), `10 ports and 1: a range leads to one that is as long`},
		{"one port to a range", ranges("80", "80-81"), `1 ports and 2`},
		{"overlap", ranges("80-89", "80-89") + second + `from = "ann tcp://127.0.0.1:85"`, `policy.toml:9:8: forward "two": ann listens at tcp://127.0.0.1:80-89 for the forward "web" already`},
		{"overlap with all addresses", ranges("80-89", "80-89") + second + `from = "ann tcp://0.0.0.0:89"`, `ann listens at tcp://127.0.0.1:80-89 for the forward "web" already`},
		{"all addresses and one", forward(name, `from = "ann tcp://[::]:80"`, to) + second + `from = "ann tcp://127.0.0.1:80"`, `ann listens at tcp://[::]:80 for the forward "web" already`},

		{"no target", forward(name, from, `to = []`), `policy.toml:5:1: forward "web": to has 0 values: 1 to 16 are allowed`},
		{"17 targets", forward(name, from, `to = ["`+strings.Repeat(`plant tcp://10.0.0.5:80", "`, 16)+`plant tcp://10.0.0.5:80"]`), `to has 17 values`},
		{"a target twice", forward(name, from, `to = ["plant tcp://10.0.0.5:80", "plant tcp://10.0.0.5:80"]`), `policy.toml:5:34: forward "web": plant tcp://10.0.0.5:80 is named twice`},
		{"a bad second target", forward(name, from, `to = ["plant tcp://10.0.0.5:80", "spare tcp://10.1:80"]`), `policy.toml:5:34: forward "web": endpoint "tcp://10.1:80"`},
		{"one to itself", forward(name, from, `to = ["plant tcp://10.0.0.5:80", "ann tcp://10.0.0.5:80"]`), `forward "web" leads from "ann" to itself`},
		{"targets of two kinds", forward(name, from, `to = ["plant tcp://10.0.0.5:80", "spare udp://10.0.0.5:80"]`), `datagrams and streams do not mix`},
		{"targets of numbers", forward(name, from, `to = [80]`), `a value of the wrong type: write to = ["factory-1 tcp://10.0.0.5:80"]`},
		{"target a number", forward(name, from, `to = 80`), `to is a text or a list of texts`},

		{"a test at no time", "domain = \"d\"\n[[test]]\nallow = \"a tcp://127.0.0.1:1 -> b tcp://10.0.0.1:1\"\nat = \"noon\"\n", `policy.toml:4:6: test: at is a date and time with a zone`},
		{"a test at a local time", "domain = \"d\"\n[[test]]\nallow = \"a tcp://127.0.0.1:1 -> b tcp://10.0.0.1:1\"\nat = 2026-11-22T10:00:00\n", `at is a date and time with a zone`},
		{"a test of a network", "domain = \"d\"\n[[test]]\nallow = \"a tcp://127.0.0.1:1 -> b tcp://10.0.0.1:1\"\nclient = \"10.0.0.0/8\"\n", `policy.toml:4:10: test: "10.0.0.0/8" is no address`},
		{"a test of a range", "domain = \"d\"\n[[test]]\nallow = \"a tcp://127.0.0.1:1-2 -> b tcp://10.0.0.1:1-2\"\n", `tcp://127.0.0.1:1-2 is a range: ask for one port`},
	} {
		_, err := Parse("policy.toml", []byte(c.text), now)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2500 {
			t.Errorf("%s:\n%v\nwant %s", c.what, err, c.want)
		}
	}
}

func TestTermsInTheirForms(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`rate = "1kB/s"`, "rate 1kB/s"}, {`rate = "1KiB/s"`, "rate 1KiB/s"}, {`month = "5000B"`, "month 5kB"}, {`month = "1000000TB"`, "month 1000000TB"},
		{`hours = "22:00-06:00"`, "hours 22:00-06:00 UTC"},
		{`hours = "mon,tue 00:00-24:00"`, "hours mon,tue 00:00-24:00 UTC"},
		{`hours = "fri-mon 20:00-00:00"`, "hours mon,fri-sun 20:00-24:00 UTC"},
		{`hours = "mon-sun 08:00-09:00"`, "hours 08:00-09:00 UTC"},
		{`clients = "127.0.0.1"`, "clients 127.0.0.1/32"}, {`clients = ["0.0.0.0/0", "::/0"]`, "clients 0.0.0.0/0, ::/0"},
		{`on_request = "30d"`, "on request for 30d"}, {`on_request = "1h30m"`, "on request for 1h30m"},
	} {
		p := parse(t, forward(name, from, to, c.text))
		if got := strings.Join(p.Forwards[0].Says(), "; "); got != c.want || len(p.Warnings) > 0 {
			t.Errorf("%s: said %s, want %s; warnings %q", c.text, got, c.want, p.Warnings)
		}
	}
	for what, text := range map[string]string{
		"it listens at tcp://127.0.0.1:80, where only clients of the same machine come": forward(name, from, to, `clients = "192.168.7.0/24"`),
		`"ann" is in the group "g" and is where the forward leads, among others`:        "domain = \"d\"\ngroups = {g = [\"ann\", \"bo\"]}\n[[forward]]\n" + name + "\nfrom = \"g tcp://127.0.0.1:80\"\nto = [\"ann tcp://10.0.0.5:80\", \"plant tcp://10.0.0.5:80\"]\n",
	} {
		if p := parse(t, text); len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], what) {
			t.Errorf("warnings %q, want %q", p.Warnings, what)
		}
	}
}

// B80: what is nested costs no more than it is long.
func TestNestingIsRefusedAtOnce(t *testing.T) {
	for _, value := range []string{strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat("{a=", 9000) + "1" + strings.Repeat("}", 9000)} {
		for _, key := range []string{"to", "until", "hours", "clients"} {
			lines := []string{name, from, to, key + " = " + value}
			if key == "to" {
				lines = []string{name, from, "to = " + value}
			}
			text := forward(lines...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse("policy.toml", []byte(text), now)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v", key, err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
				t.Errorf("%s: %d MB for a file of %d kB", key, used>>20, len(text)>>10)
			}
		}
	}
}

func TestNobodyIsLedToHimself(t *testing.T) {
	p := parse(t, "domain = \"d\"\ngroups = {g = [\"ann\", \"bo\"]}\n[[forward]]\n"+name+"\nfrom = \"g tcp://127.0.0.1:80\"\nto = [\"ann tcp://10.0.0.5:80\", \"plant tcp://10.0.0.5:80\"]\n")
	var got []string
	for _, g := range p.Grants(keys("ann", "bo", "plant"), nil, now) {
		got = append(got, fmt.Sprintf("%s>%s %d", g.Entry.Name, g.Exit.Name, g.Rank))
	}
	if want := []string{"ann>plant 1", "bo>ann 0", "bo>plant 1"}; !slices.Equal(got, want) {
		t.Errorf("grants %q, want %q", got, want)
	}
	if a, err := p.Explain("ann tcp://127.0.0.1:80 -> ann tcp://10.0.0.5:80", now, netip.Addr{}, nil); err != nil || a.Allowed {
		t.Errorf("explained as %+v, %v", a, err)
	}
}

// B83: nothing depends on the order of forwards, groups, windows and clients.
func TestOrderOfTheFileMakesNoDifference(t *testing.T) {
	parts := strings.Split(pinned+"[[forward]]"+strings.SplitN(complete, "[[forward]]", 2)[1], "[[forward]]\n")
	head, forwards := parts[0], parts[1:]
	for i := range forwards {
		forwards[i] = strings.TrimSpace(forwards[i]) + "\n"
	}
	forwards[slices.IndexFunc(forwards, func(f string) bool { return strings.Contains(f, `name = "web"`) && strings.Contains(f, "192.168") })] =
		strings.Replace(strings.SplitN(complete, "[[forward]]\n", 3)[1], `name = "web"`, `name = "wide"`, 1)
	enrolled := keys("ann", "bo", "cy", "plant", "spare")
	set := func(text string) map[grant.Permission]bool {
		m := make(map[grant.Permission]bool)
		for _, g := range parse(t, text).Grants(enrolled, nil, now) {
			m[g] = true
		}
		return m
	}
	want := set(head + "[[forward]]\n" + strings.Join(forwards, "[[forward]]\n"))
	if len(want) < 10 {
		t.Fatalf("%d grants only", len(want))
	}
	random := rand.New(rand.NewPCG(1, 2))
	swap := strings.NewReplacer(
		`["ann", "bo"]`, `["bo", "ann"]`,
		`["mon-fri 08:00-18:00", "sat,sun 22:00-06:00"]`, `["sun,sat 22:00-06:00", "mon-fri 08:00-18:00"]`,
		`["192.168.7.0/24", "2001:db8::7"]`, `["2001:db8::7/128", "192.168.7.0/24"]`)
	for range 20 {
		random.Shuffle(len(forwards), func(i, j int) { forwards[i], forwards[j] = forwards[j], forwards[i] })
		text := head + "[[forward]]\n" + strings.Join(forwards, "[[forward]]\n")
		if d := cmp.Diff(want, set(swap.Replace(text)), cmp.AllowUnexported(endpoint.Endpoint{}, grant.Hours{}, grant.Clients{})); d != "" {
			t.Fatalf("another order, other grants (-want +got):\n%s\nof\n%s", d, text)
		}
	}
}
