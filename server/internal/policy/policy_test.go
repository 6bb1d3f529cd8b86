package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const example = `domain = "example.org"

[groups]
engineers = ["laptop-ann", "laptop-bo"]

[[forward]]
name = "plc-web"
from = "engineers tcp://127.0.0.1:8080"
to   = "factory-1 tcp://10.0.0.5:80"
proxy_protocol = 2

[[forward]]
name  = "plc-snmp"
from  = "laptop-ann udp://127.0.0.1:1161"
to    = "factory-1 udp://10.0.0.5:161"
until = 2027-01-31T19:00:00+01:00

[[test]]
allow = "laptop-ann tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
[[test]]
deny  = "laptop-cy tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
[[test]]
deny  = "laptop-bo udp://127.0.0.1:1161 -> factory-1 udp://10.0.0.5:161"
`

func keys(names ...string) map[string]identity.KeyHash {
	m := make(map[string]identity.KeyHash)
	for i, n := range names {
		m[n] = identity.KeyHash{byte(i + 1)}
	}
	return m
}

func noRelay(string) bool { return false }

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.toml", []byte(text), now)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return p
}

func TestPolicyExpandsToGrants(t *testing.T) {
	p := parse(t, example)
	enrolled := keys("laptop-ann", "laptop-bo", "factory-1")
	if err := p.CheckNames("example.org", enrolled, noRelay); err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) > 0 {
		t.Errorf("warnings %q", p.Warnings)
	}
	exit := grant.Party{Name: "factory-1", Key: enrolled["factory-1"]}
	web := func(name string) grant.Permission {
		return grant.Permission{
			Forward: "plc-web", Entry: grant.Party{Name: name, Key: enrolled[name]}, Listen: endpoint.MustParse("tcp://127.0.0.1:8080"),
			Exit: exit, Target: endpoint.MustParse("tcp://10.0.0.5:80"), Proxy: 2,
		}
	}
	want := []grant.Permission{
		web("laptop-ann"), web("laptop-bo"),
		{
			Forward: "plc-snmp", Entry: grant.Party{Name: "laptop-ann", Key: enrolled["laptop-ann"]}, Listen: endpoint.MustParse("udp://127.0.0.1:1161"),
			Exit: exit, Target: endpoint.MustParse("udp://10.0.0.5:161"), End: time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC),
		},
	}
	got := p.Grants(enrolled, nil, now)
	if d := cmp.Diff(want, got, cmp.AllowUnexported(grant.Hours{}, grant.Clients{}), cmp.Comparer(func(a, b endpoint.Endpoint) bool { return a == b })); d != "" {
		t.Errorf("grants (-want +got):\n%s", d)
	}
	for _, g := range got {
		if err := g.Check(); err != nil {
			t.Errorf("permission cannot be signed: %v", err)
		}
	}
	if failed := p.Test(now); len(failed) > 0 {
		t.Errorf("tests failed: %v", failed)
	}
	if n := len(p.Grants(keys("laptop-bo", "factory-1"), nil, now)); n != 1 {
		t.Errorf("%d grants with laptop-bo and factory-1 enrolled, want 1", n)
	}
	if n := len(p.Grants(enrolled, nil, time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC))); n != 2 {
		t.Errorf("%d grants after plc-snmp has ended, want 2", n)
	}
}

func forward(lines ...string) string {
	return "domain = \"example.org\"\n[[forward]]\n" + strings.Join(lines, "\n") + "\n"
}

const (
	name = `name = "web"`
	from = `from = "ann tcp://127.0.0.1:80"`
	to   = `to = "plant tcp://10.0.0.5:80"`
)

// B78, B79, B80, B82, B90 and the rules of the file: what is refused, where,
// and with which words.
func TestMistakesAreShownWhereTheyStand(t *testing.T) {
	second := "\n[[forward]]\nname = \"two\"\n"
	for _, c := range []struct{ what, text, want string }{
		{"misspelt key", forward(name, from, `tto = "plant tcp://10.0.0.5:80"`), `policy.toml:5:1: unknown key "forward.tto"; did you mean "to"?`},
		{"misspelt table", "domain = \"d\"\n[[forwards]]\nname=\"x\"\n", `policy.toml:2:3: unknown key "forwards"; did you mean "forward"?`},
		{"misspelt test", "domain = \"d\"\n[[test]]\nalow = \"x\"\n", `policy.toml:3:1: unknown key "test.alow"; did you mean "allow"?`},
		{"duplicate key", forward(name, name, from, to), `policy.toml:4:1:`},
		{"wrong type", forward(name, "from = 80", to), `policy.toml:4:8:`},
		{"no TOML", "domain = \n", `policy.toml:1:`},
		{"UTF-16", "\xff\xfed\x00o\x00", `not UTF-8`},
		{"binary", "\x00\x01\x02", `policy.toml:1:1:`},
		{"nesting", "domain = " + strings.Repeat("[", 10000), `policy.toml:1:`},
		{"no domain", "[[forward]]\nname = \"x\"\n", `the domain is missing`},
		{"bad domain", "domain = \"Example\"\n", `policy.toml:1:10: domain:`},
		{"empty portal", forward(name, `from = " tcp://127.0.0.1:80"`, to), `policy.toml:4:8: forward "web": " tcp://127.0.0.1:80" is not a name and an endpoint`},
		{"empty from", forward(name, `from = ""`, to), `forward "web" has no "from"`},
		{"no to", forward(name, from), `policy.toml:2:3: forward "web" has no "to"`},
		{"no name", forward(from, to), `policy.toml:2:3: a forward without a name`},
		{"star", forward(name, `from = "* tcp://127.0.0.1:80"`, to), `name "*"`},
		{"upper case", forward(name, `from = "Ann tcp://127.0.0.1:80"`, to), `name "Ann"`},
		{"final dot", forward(name, `from = "ann. tcp://127.0.0.1:80"`, to), `name "ann."`},
		{"path as name", forward(name, `from = "../x tcp://127.0.0.1:80"`, to), `name "../x"`},
		{"name of 64", forward(`name = "`+strings.Repeat("a", 64)+`"`, from, to), `name of 64 bytes`},
		{"port 0", forward(name, `from = "ann tcp://127.0.0.1:0"`, to), `port "0"`},
		{"port 65536", forward(name, `from = "ann tcp://127.0.0.1:65536"`, to), `port "65536"`},
		{"octal", forward(name, from, `to = "plant tcp://010.0.0.1:80"`), `policy.toml:5:6: forward "web": endpoint "tcp://010.0.0.1:80"`},
		{"hex", forward(name, from, `to = "plant tcp://0x7f.1:80"`), `endpoint "tcp://0x7f.1:80"`},
		{"short", forward(name, from, `to = "plant tcp://127.1:80"`), `endpoint "tcp://127.1:80"`},
		{"prefix", forward(name, from, `to = "plant tcp://10.0.0.1/8:80"`), `endpoint "tcp://10.0.0.1/8:80"`},
		{"listener by name", forward(name, `from = "ann tcp://localhost:80"`, to), `a listener needs an IP address`},
		{"dial stdio", forward(name, from, `to = "plant stdio:"`), `stdio: can only listen`},
		{"dial any", forward(name, from, `to = "plant tcp://0.0.0.0:80"`), `nothing can be dialled there`},
		{"udp to tcp", forward(name, `from = "ann udp://127.0.0.1:80"`, to), `datagrams and streams do not mix`},
		{"to itself", forward(name, from, `to = "ann tcp://10.0.0.5:80"`), `policy.toml:5:6: forward "web" leads from "ann" to itself`},
		{"to a group", "domain = \"d\"\ngroups = {g = [\"a\"]}\n[[forward]]\n" + name + "\n" + from + "\nto = \"g tcp://10.0.0.5:80\"\n", `"g" is a group: a forward leads to portals`},
		{"until a string", forward(name, from, to, `until = "2027-01-31"`), `policy.toml:6:9: forward "web": until is a date and time with a zone`},
		{"until without zone", forward(name, from, to, `until = 2027-01-31T18:00:00`), `until is a date and time with a zone`},
		{"until a date", forward(name, from, to, `until = 2027-01-31`), `until is a date and time with a zone`},
		{"until a number", forward(name, from, to, `until = 10`), `until is a date and time with a zone`},
		{"proxy 3", forward(name, from, to, `proxy_protocol = 3`), `policy.toml:6:18: forward "web": proxy_protocol is 1 or 2`},
		{"proxy 0", forward(name, from, to, `proxy_protocol = 0`), `proxy_protocol is 1 or 2`},
		{"proxy for udp", forward(name, `from = "ann udp://127.0.0.1:80"`, `to = "plant udp://10.0.0.5:80"`, `proxy_protocol = 1`), `no PROXY protocol for datagrams`},
		{"one name twice", forward(name, from, to) + "[[forward]]\n" + name + "\n" + `from = "ann tcp://127.0.0.1:81"` + "\n" + to, `policy.toml:7:8: two forwards are named "web"`},
		{"one listener twice", forward(name, from, to) + second + from + "\n" + to, `policy.toml:9:8: forward "two": ann listens at tcp://127.0.0.1:80 for the forward "web" already`},
		{"one listener twice, by a group", "domain = \"d\"\ngroups = {g = [\"ann\", \"bo\"]}\n[[forward]]\n" + name + "\nfrom = \"g tcp://127.0.0.1:80\"\n" + to + second + from + "\n" + to, `ann listens at tcp://127.0.0.1:80`},
		{"one stdio twice", forward(name, `from = "ann stdio:"`, to) + second + "from = \"ann stdio:\"\n" + to, `ann listens at stdio:`},
		{"group of groups", "domain = \"d\"\ngroups = {g = [\"a\"], h = [\"g\"]}\n", `policy.toml:2:27: group "h": "g" is a group`},
		{"group of a bad name", "domain = \"d\"\n[groups]\nG = [\"a\"]\n", `group: name "G"`},
		{"bad name in a group", "domain = \"d\"\n[groups]\ng = [\"a\", \"b c\"]\n", `policy.toml:3:11: group "g": portal name "b c"`},
		{"member twice", "domain = \"d\"\n[groups]\ng = [\"a\", \"a\"]\n", `group "g" names "a" twice`},
		{"test of nothing", "domain = \"d\"\n[[test]]\n", `a test has one of allow and deny`},
		{"bad relay", forward(name, from, to, `relay = "Relay 1"`), `policy.toml:6:9: forward "web": relay`},
		{"two relays for one pair", forward(name, from, to, `relay = "r1"`) + second + "from = \"plant tcp://127.0.0.1:81\"\nto = \"ann tcp://10.0.0.5:80\"\nrelay = \"r2\"\n", `policy.toml:12:9: forward "two": plant and ann meet at the relay "r1" for the forward "web"`},
		{"test of both", "domain = \"d\"\n[[test]]\nallow = \"a\"\ndeny = \"b\"\n", `a test has one of allow and deny`},
		{"test without arrow", "domain = \"d\"\n[[test]]\ndeny = \"a tcp://127.0.0.1:1\"\n", `policy.toml:3:8: test:`},
		{"test with bad endpoint", "domain = \"d\"\n[[test]]\ndeny = \"a tcp://127.1:1 -> b tcp://10.0.0.1:1\"\n", `endpoint "tcp://127.1:1"`},
		{"test of a group", "domain = \"d\"\ngroups = {g = [\"a\"]}\n[[test]]\ndeny = \"g tcp://127.0.0.1:1 -> b tcp://10.0.0.1:1\"\n", `"g" is a group`},
	} {
		_, err := Parse("policy.toml", []byte(c.text), now)
		if err == nil {
			t.Errorf("%s: accepted", c.what)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%s\nwant %s", c.what, err, c.want)
		}
		if len(err.Error()) > 2500 {
			t.Errorf("%s: an error of %d bytes", c.what, len(err.Error()))
		}
	}
}

func TestMistakeShowsItsLineWithAMark(t *testing.T) {
	_, err := Parse("policy.toml", []byte(forward(name, from, `to   = "plant tcp://127.1:80"`)), now)
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{`    5 | to   = "plant tcp://127.1:80"`, `      |        ^`}
	if d := cmp.Diff(want, lines[1:]); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
}

func TestHarmlessForms(t *testing.T) {
	for what, text := range map[string]string{
		"CRLF and BOM":        "\ufeff" + strings.ReplaceAll(example, "\n", "\r\n"),
		"inline tables":       `domain = "d"` + "\n" + `forward = [{name = "w", from = "a tcp://127.0.0.1:1", to = "b tcp://10.0.0.1:1"}]`,
		"two stdio listeners": forward(name, `from = "ann stdio:"`, to) + "[[forward]]\nname = \"two\"\nfrom = \"ann stdio:\"\nto = \"plant tcp://10.0.0.5:22\"\n",
		"port 65535":          forward(name, from, `to = "plant tcp://10.0.0.5:65535"`),
		"one port, two kinds": forward(name, from, to) + "[[forward]]\nname = \"two\"\nfrom = \"ann udp://127.0.0.1:80\"\nto = \"plant udp://10.0.0.5:80\"\n",
	} {
		p := parse(t, text)
		if len(p.Forwards) == 0 {
			t.Errorf("%s: no forward", what)
		}
	}
}

func TestWhatIsOnlyAWarning(t *testing.T) {
	for _, c := range []struct{ what, text, want string }{
		{"empty file", "", "it has no forward: everything is denied"},
		{"only a domain", "domain = \"example.org\"\n", "it has no forward: everything is denied"},
		{"not enrolled", forward(name, from, to), `policy.toml:5:6: no portal "plant" is enrolled`},
		{"has ended", forward(name, from, to, "until = 2026-11-22T12:00:00Z"), `policy.toml:6:9: forward "web" ended at 2026-11-22T12:00:00Z`},
		{"empty group", "domain = \"example.org\"\n[groups]\ng = []\n", `policy.toml:3:1: group "g" is empty`},
		{"group holds the exit", "domain = \"example.org\"\ngroups = {g = [\"ann\", \"plant\"]}\n[[forward]]\n" + name + "\nfrom = \"g tcp://127.0.0.1:80\"\n" + to, `it gets no listener`},
	} {
		p := parse(t, c.text)
		if err := p.CheckNames("example.org", keys("ann"), noRelay); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got := strings.Join(p.WarningLines(), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: warnings %q, want %q", c.what, got, c.want)
		}
		if n := len(p.Grants(keys("ann"), nil, now)); n != 0 {
			t.Errorf("%s: %d grants", c.what, n)
		}
	}
}

func TestWarningsAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("domain = \"example.org\"\n")
	for i := range 3 * maxWarnings {
		fmt.Fprintf(&text, "[[forward]]\nname = \"f%d\"\nfrom = \"p%d tcp://127.0.0.1:80\"\nto = \"x tcp://10.0.0.1:80\"\n", i, i)
	}
	p := parse(t, text.String())
	if err := p.CheckNames("example.org", nil, noRelay); err != nil {
		t.Fatal(err)
	}
	lines := p.WarningLines()
	if want := fmt.Sprintf("policy.toml: %d more warnings", 2*maxWarnings+1); len(lines) != maxWarnings+1 || lines[maxWarnings] != want {
		t.Errorf("%d lines, the last %q; want %d and %q", len(lines), lines[len(lines)-1], maxWarnings+1, want)
	}
}

func TestNamesThatOnlyTheServerKnows(t *testing.T) {
	if err := parse(t, example).CheckNames("example.com", nil, noRelay); err == nil || !strings.Contains(err.Error(), `policy.toml:1:10: the policy is for the domain "example.org"`) {
		t.Errorf("other domain: %v", err)
	}
	if err := parse(t, example).CheckNames("example.org", keys("engineers"), noRelay); err == nil || !strings.Contains(err.Error(), "one space of names") {
		t.Errorf("group named like a portal: %v", err)
	}
}

func TestFailedTestsAreShown(t *testing.T) {
	p := parse(t, example+`
[[test]]
deny = "laptop-bo tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
[[test]]
allow = "laptop-bo tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:81"
[[test]]
allow = "factory-1 tcp://127.0.0.1:8080 -> laptop-ann tcp://10.0.0.5:80"
[[test]]
allow = "laptop-ann udp://127.0.0.1:1161 -> factory-1 udp://10.0.0.5:161"
`)
	var got []string
	for _, err := range p.Test(now) {
		got = append(got, strings.Split(err.Error(), "\n")[0])
	}
	want := []string{
		"policy.toml:26:8: test failed: it must be denied, and the forward \"plc-web\" allows it (policy.toml:7:8)",
		"policy.toml:28:9: test failed: it must be allowed, and no forward allows it",
		"policy.toml:30:9: test failed: it must be allowed, and no forward allows it",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("failed tests (-want +got):\n%s", d)
	}
	if failed := p.Test(time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)); len(failed) != 4 || !strings.Contains(failed[3].Error(), "the forward ended at 2027-01-31T18:00:00Z") {
		t.Errorf("after plc-snmp has ended: %v", failed)
	}
}

func big(forwards int, portals int) string {
	var text strings.Builder
	text.WriteString("domain = \"example.org\"\n")
	for i := range forwards {
		fmt.Fprintf(&text, "[[forward]]\nname=\"f%d\"\nfrom=\"p%d tcp://127.0.%d.%d:80\"\nto=\"x%d tcp://10.0.0.1:80\"\n", i, i%portals, i/portals/250, i/portals%250+1, i%portals)
	}
	return text.String()
}

// B84: a policy at the limit is read at once, and one beyond it is refused at
// once.
func TestLimitsOfSize(t *testing.T) {
	if testing.Short() {
		t.Skip("reads policies of 10 MB")
	}
	text := big(MaxGrants, 1000)
	before := processorTime(t)
	parse(t, text)
	read := processorTime(t) - before
	t.Logf("a policy of %d forwards was read in %v of processor time", MaxGrants, read)
	if read > 20*time.Second { // 2 s on the machine it was written on, and a race detector costs
		t.Errorf("reading took %v", read)
	}
	for what, text := range map[string]string{
		fmt.Sprintf("more than %d grants", MaxGrants):      big(MaxGrants+1, 1000),
		fmt.Sprintf("more than %d grants\n", MaxPerPortal): big(MaxPerPortal+1, 1),
	} {
		if _, err := Parse("policy.toml", []byte(text), now); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(what)) {
			t.Errorf("want %q, got %v", what, err)
		}
	}
}

// processorTime is what this process has used: others may use the machine, too.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// B87.
func TestPolicyFileThatOthersMayWriteIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.toml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(file); err == nil || !strings.Contains(err.Error(), "chmod o-w "+file) {
		t.Errorf("world-writable: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: no file can be given to another user")
	}
	os.Chmod(file, 0o600)
	os.Chown(file, 65534, 65534)
	if _, err := ReadFile(file); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("of another user: %v", err)
	}
}

func TestPolicyFileThatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	f, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	f.Truncate(1 << 30)
	f.Close()
	wide := filepath.Join(dir, "wide") // which would get to the server as something else
	if err := os.WriteFile(wide, []byte("\xff\xfed\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, filepath.Join(dir, "absent"), "/dev/zero", large, wide} {
		if _, err := ReadFile(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
