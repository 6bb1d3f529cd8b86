package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/wire"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestExplainNamesTheLineOrWhatIsMissing(t *testing.T) {
	p := parse(t, complete)
	open := Openings{}
	for _, c := range []struct {
		pair, at, client string
		reason           wire.Reason
		forward, why     string
	}{
		{"ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", "2026-11-23T10:00:00+01:00", "", 0, "web", `the forward "web" allows it, as number 1 of its 2 targets`},
		{"bo tcp://192.168.7.1:8002 -> spare tcp://10.0.1.5:9002", "2026-11-23T10:00:00+01:00", "192.168.7.200", 0, "web", `as number 2 of its 2 targets`},
		{"ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", "2026-11-23T18:00:00+01:00", "", wire.ReasonOutsideHours, "web", `which are next at 2026-11-24T07:00:00Z`},
		{"ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", "2027-02-01T10:00:00+01:00", "", wire.ReasonGrantExpired, "web", `the forward ended at 2027-01-31T18:00:00Z`},
		{"ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", "2026-11-23T10:00:00+01:00", "192.168.8.1", wire.ReasonClientForbidden, "web", `the forward is for the clients 192.168.7.0/24, 2001:db8::7/128, not for 192.168.8.1`},
		{"ann stdio: -> plant tcp://127.0.0.1:22", "2026-11-23T10:00:00+01:00", "", wire.ReasonNotGranted, "shell", `granted on request only, and nobody has allowed it`},
		// The ports of a range are joined one to one.
		{"ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9002", "2026-11-23T10:00:00+01:00", "", wire.ReasonNotGranted, "web", `the nearest is "web", which dials tcp://10.0.0.5:9001`},
		{"ann tcp://192.168.7.1:8003 -> plant tcp://10.0.0.5:9002", "2026-11-23T10:00:00+01:00", "", wire.ReasonNotGranted, "web", `which listens at tcp://192.168.7.1:8000-8002 and dials tcp://10.0.0.5:9000`},
		{"cy tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", "2026-11-23T10:00:00+01:00", "", wire.ReasonNotGranted, "web", `the nearest is "web", which is from engineers`},
		{"ann tcp://192.168.7.1:8001 -> spare tcp://10.0.0.5:9001", "2026-11-23T10:00:00+01:00", "", wire.ReasonNotGranted, "web", `which leads to plant`},
		{"cy tcp://127.0.0.1:1 -> dee tcp://127.0.0.1:2", "2026-11-23T10:00:00+01:00", "", wire.ReasonNotGranted, "", `no forward allows it`},
	} {
		client := netip.Addr{}
		if c.client != "" {
			client = netip.MustParseAddr(c.client)
		}
		a, err := p.Explain(c.pair, at(t, c.at), client, open)
		if err != nil || a.Allowed != (c.reason == 0) || a.Reason != c.reason || a.Forward != c.forward || !strings.Contains(a.Why, c.why) {
			t.Errorf("%s at %s of %s:\n%+v, %v\nwant %v, %q, %s", c.pair, c.at, c.client, a, err, c.reason, c.forward, c.why)
		}
		if place := map[string]string{"web": "policy.toml:7:8", "shell": "policy.toml:22:8", "": ""}[c.forward]; a.Place != place {
			t.Errorf("%s: of %s, want %s", c.pair, a.Place, place)
		}
	}
	a, err := p.Explain("ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", at(t, "2027-01-29T10:00:00+01:00"), netip.Addr{}, nil)
	if want := at(t, "2027-01-29T17:00:00Z"); err != nil || !a.Next.Equal(want) {
		t.Errorf("on a Friday it changes at %v, %v, want %v", a.Next, err, want)
	}
	a, err = p.Explain("ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001", at(t, "2027-01-31T00:00:00+01:00"), netip.Addr{}, nil)
	if want := at(t, "2027-01-31T05:00:00Z"); err != nil || !a.Next.Equal(want) {
		t.Errorf("on the last night it changes at %v, %v, want %v", a.Next, err, want)
	}
	for _, bad := range []string{"", "ann tcp://127.0.0.1:80", "ann -> plant", "engineers tcp://127.0.0.1:80 -> plant tcp://10.0.0.5:80", "ann tcp://127.0.0.1:80-81 -> plant tcp://10.0.0.5:80-81", "a tcp://1.1.1.1:1 -> b tcp://1.1.1.1:1 -> c tcp://1.1.1.1:1"} {
		if a, err := p.Explain(bad, now, netip.Addr{}, nil); err == nil {
			t.Errorf("%q is explained as %+v", bad, a)
		}
	}
}

func TestTestsMaySayTimeClientAndRequest(t *testing.T) {
	ask := func(lines ...string) string { return "\n[[test]]\n" + strings.Join(lines, "\n") + "\n" }
	const web = ` = "ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9001"`
	const shell = ` = "ann stdio: -> plant tcp://127.0.0.1:22"`
	for _, c := range []struct{ test, want string }{ // empty: it passes
		{ask("allow" + web), ""}, // now is a Sunday at noon: without a time, hours make no difference
		{ask("deny" + web), `it must be denied, and the forward "web" allows it (policy.toml:7:8)`},
		{ask("allow"+web, "at = 2026-11-23T10:00:00+01:00"), ""},
		{ask("allow"+web, "at = 2026-11-22T10:00:00+01:00"), `policy.toml:28:9: test failed: it must be allowed, and it is outside the hours of the forward (mon-fri 08:00-18:00, sat,sun 22:00-06:00 CET-1CEST,M3.5.0,M10.5.0/3), which are next at 2026-11-22T21:00:00Z`},
		{ask("deny"+web, "at = 2026-11-22T10:00:00+01:00"), ""},
		{ask("deny"+web, "at = 2027-02-01T10:00:00+01:00"), ""},
		{ask("allow"+web, `client = "192.168.7.9"`), ""},
		{ask("allow"+web, `client = "10.0.0.9"`), `not for 10.0.0.9`},
		{ask("deny"+web, `client = "10.0.0.9"`), ""},
		{ask("deny" + shell), ""},
		{ask("allow" + shell), `the forward is granted on request only`},
		{ask("allow"+shell, "opened = true"), ""},
		{ask("deny"+shell, "opened = true"), `it must be denied`},
		{ask("deny"+web, "opened = true", "at = 2026-11-22T10:00:00+01:00"), ""},
		{ask(`deny = "ann tcp://192.168.7.1:8001 -> plant tcp://10.0.0.5:9002"`), ""},
	} {
		failed := parse(t, complete+c.test).Test(now)
		if c.want == "" && len(failed) > 0 || c.want != "" && (len(failed) != 1 || !strings.Contains(failed[0].Error(), c.want)) {
			t.Errorf("%s: %v\nwant %q", c.test, failed, c.want)
		}
	}
}

// TestLookUpLooksAtOneForwardOnly takes away what a look-up has no business with.
func TestLookUpLooksAtOneForwardOnly(t *testing.T) {
	p := parse(t, big(5000, 100))
	for _, i := range []int{0, 4999, 1234} {
		few := *p
		few.Forwards = make([]Forward, len(p.Forwards)) // none of which joins anything
		few.Forwards[i] = p.Forwards[i]
		f := &p.Forwards[i]
		asked := pair{f.Entries[0], f.Listen.First, f.To[0].Exit, f.To[0].Dial.First}
		if a := few.judge(asked, conditions{at: now}); !a.Allowed || a.Forward != f.Name {
			t.Errorf("%v: %+v", asked, a)
		}
		if n := testing.AllocsPerRun(100, func() { few.find(asked) }); n > 0 {
			t.Errorf("%v costs %v allocations to find", asked, n)
		}
	}
}

// BenchmarkFind looks pairs up in the largest policy there may be.
func BenchmarkFind(b *testing.B) {
	p, err := Parse("policy.toml", []byte(big(MaxGrants, 1000)), now)
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		f := &p.Forwards[i*7919%MaxGrants]
		if _, _, ok := p.find(pair{f.Entries[0], f.Listen.First, f.To[0].Exit, f.To[0].Dial.First}); !ok {
			b.Fatal("not found")
		}
		i++
	}
}

func TestCompareShowsEveryPairThatChanges(t *testing.T) {
	was := parse(t, `domain = "example.org"
groups = {g = ["ann", "bo"]}
[[forward]]
name = "web"
from = "g tcp://127.0.0.1:80"
to = ["plant tcp://10.0.0.5:80", "spare tcp://10.0.0.5:80"]
rate = "1MB/s"
[[forward]]
name = "wide"
from = "ann tcp://127.0.0.1:8000-8009"
to = "plant tcp://10.0.0.5:9000-9009"
[[forward]]
name = "over"
from = "ann tcp://127.0.0.1:1"
to = "plant tcp://10.0.0.5:1"
until = 2026-11-22T12:00:00Z
`)
	is := parse(t, `domain = "example.org"
groups = {g = ["bo", "cy"]}
[[forward]]
name = "web"
from = "g tcp://127.0.0.1:80"
to = ["spare tcp://10.0.0.5:80", "plant tcp://10.0.0.5:80"]
rate = "1MB/s"
[[forward]]
name = "range"
from = "ann tcp://127.0.0.1:8002-8011"
to = "plant tcp://10.0.0.5:9002-9011"
[[forward]]
name = "shell"
from = "ann unix:///s"
to = "plant tcp://127.0.0.1:22"
on_request = "1h"
`)
	line := func(c Change) string {
		return fmt.Sprintf("%s %s %s -> %s %s (%s) %q %q", c.Kind, c.Entry, c.Listen, c.Exit, c.Target, c.Forward, c.Before, c.After)
	}
	var got []string
	for _, c := range is.Compare(was, now) {
		got = append(got, line(c))
	}
	want := []string{
		`closes ann tcp://127.0.0.1:80 -> plant tcp://10.0.0.5:80 (web) ["rate 1MB/s" "target 1 of 2"] []`,
		`closes ann tcp://127.0.0.1:8000-8001 -> plant tcp://10.0.0.5:9000-9001 (wide) [] []`,
		`opens ann tcp://127.0.0.1:8010-8011 -> plant tcp://10.0.0.5:9010-9011 (range) [] []`,
		`opens ann unix:///s -> plant tcp://127.0.0.1:22 (shell) [] ["on request for 1h"]`,
		`closes ann tcp://127.0.0.1:80 -> spare tcp://10.0.0.5:80 (web) ["rate 1MB/s" "target 2 of 2"] []`,
		`changes bo tcp://127.0.0.1:80 -> plant tcp://10.0.0.5:80 (web) ["rate 1MB/s" "target 1 of 2"] ["rate 1MB/s" "target 2 of 2"]`,
		`changes bo tcp://127.0.0.1:80 -> spare tcp://10.0.0.5:80 (web) ["rate 1MB/s" "target 2 of 2"] ["rate 1MB/s" "target 1 of 2"]`,
		`opens cy tcp://127.0.0.1:80 -> plant tcp://10.0.0.5:80 (web) [] ["rate 1MB/s" "target 2 of 2"]`,
		`opens cy tcp://127.0.0.1:80 -> spare tcp://10.0.0.5:80 (web) [] ["rate 1MB/s" "target 1 of 2"]`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
	if list := is.Compare(is, now); len(list) > 0 {
		t.Errorf("against itself: %v", list)
	}
	// There and back is nothing.
	count := func(list []Change, kind ChangeKind) (n int) {
		for _, c := range list {
			if c.Kind == kind {
				n += c.Listen.Ports
			}
		}
		return n
	}
	forth, back := is.Compare(was, now), was.Compare(is, now)
	if count(forth, Opens) != count(back, Closes) || count(forth, Closes) != count(back, Opens) || count(forth, Changes) != count(back, Changes) {
		t.Errorf("forth %v, back %v", forth, back)
	}
}
