package allow

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/wire"
)

func rules(t *testing.T, texts ...string) List {
	t.Helper()
	var rr []Rule
	for _, s := range texts {
		r, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if r.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, r)
		}
		rr = append(rr, r)
	}
	return NewList(rr...)
}

func reasonOf(t *testing.T, err error) wire.Reason {
	t.Helper()
	if err == nil {
		return wire.ReasonNone
	}
	var d *Denied
	if !errors.As(err, &d) {
		t.Fatalf("error of type %T: %v", err, err)
	}
	return d.Reason
}

func TestTargetsWithAndWithoutAList(t *testing.T) {
	const (
		yes       = wire.ReasonNone
		forbidden = wire.ReasonForbidden
		local     = wire.ReasonLocalList
	)
	for _, c := range []struct {
		list   []string // nil: not written
		target string
		want   wire.Reason
	}{
		{nil, "tcp://10.0.0.5:80", yes},
		{nil, "udp://[2001:db8::1]:53", yes},
		{nil, "tcp://127.0.0.1:80", yes},
		{nil, "tcp://[::1]:80", yes},
		{nil, "unix:///run/app.sock", yes},
		{nil, "tcp://db.lan:5432", yes},
		{nil, "tcp://169.254.169.254:80", forbidden},
		{nil, "tcp://[fd00:ec2::254]:80", forbidden},
		{nil, "tcp://100.100.100.200:80", forbidden},
		{nil, "tcp://169.254.7.7:80", forbidden},
		{nil, "tcp://[fe80::1]:80", forbidden},
		{nil, "tcp://[64:ff9b::7f00:1]:80", forbidden},
		{nil, "tcp://[2002:7f00:1::]:80", forbidden},
		{nil, "tcp://255.255.255.255:80", forbidden},
		{nil, "tcp://localhost:80", forbidden},
		{nil, "tcp://ip6-localhost:80", forbidden},
		{nil, "tcp://a.localhost:80", forbidden},

		{[]string{}, "tcp://10.0.0.5:80", local},
		{[]string{}, "unix:///run/app.sock", local},
		{[]string{}, "tcp://127.0.0.1:80", forbidden},
		{[]string{"tcp://10.0.0.5:80"}, "tcp://10.0.0.5:80", yes},
		{[]string{"tcp://10.0.0.5:80"}, "tcp://10.0.0.5:81", local},
		{[]string{"tcp://10.0.0.5:80"}, "udp://10.0.0.5:80", local},
		{[]string{"tcp://10.0.0.5:*"}, "tcp://10.0.0.5:65535", yes},
		{[]string{"tcp://10.0.0.5:*"}, "tcp://10.0.0.6:80", local},
		{[]string{"tcp://10.0.0.0/8:*"}, "tcp://10.255.255.255:1", yes},
		{[]string{"tcp://10.0.0.0/8:80"}, "tcp://10.1.2.3:80", yes},
		{[]string{"tcp://10.0.0.0/8:80"}, "tcp://10.1.2.3:81", local},
		{[]string{"tcp://10.0.0.0/8:*"}, "tcp://11.0.0.1:80", local},
		{[]string{"tcp://[2001:db8::/32]:443"}, "tcp://[2001:db8:1::1]:443", yes},
		{[]string{"tcp://0.0.0.0/0:*"}, "tcp://127.0.0.1:80", forbidden},
		{[]string{"tcp://0.0.0.0/0:*"}, "tcp://169.254.169.254:80", forbidden},
		{[]string{"tcp://169.254.0.0/16:*"}, "tcp://169.254.7.7:80", yes},
		{[]string{"tcp://169.254.0.0/16:*"}, "tcp://169.254.169.254:80", forbidden},
		{[]string{"tcp://169.254.169.254:80"}, "tcp://169.254.169.254:80", yes},
		{[]string{"tcp://169.254.169.254:*"}, "tcp://169.254.169.254:80", yes},
		{[]string{"tcp://127.0.0.1:80"}, "tcp://127.0.0.1:80", yes},
		{[]string{"tcp://127.0.0.0/8:*"}, "tcp://127.0.0.9:80", yes},
		{[]string{"tcp://[::1]:*"}, "tcp://127.0.0.1:80", forbidden},
		{[]string{"unix:///run/app.sock"}, "unix:///run/app.sock", yes},
		{[]string{"unix:///run/app/*"}, "unix:///run/app/a.sock", yes},
		{[]string{"unix:///run/app/*"}, "unix:///run/app/b/a.sock", local},
		{[]string{"tcp://db.lan:5432"}, "tcp://db.lan:5432", yes},
	} {
		l := List{}
		if c.list != nil {
			l = rules(t, c.list...)
		}
		if got := reasonOf(t, l.Target(endpoint.MustParse(c.target))); got != c.want {
			t.Errorf("list %q, target %s: %v, want %v", c.list, c.target, got, c.want)
		}
	}
}

func TestOneForbiddenAnswerRefusesTheName(t *testing.T) {
	const (
		yes       = wire.ReasonNone
		forbidden = wire.ReasonForbidden
		local     = wire.ReasonLocalList
	)
	for _, c := range []struct {
		list    []string
		answers string
		want    wire.Reason
	}{
		{nil, "10.0.0.5", yes},
		{nil, "10.0.0.5 2001:db8::1", yes},
		{nil, "127.0.0.1", forbidden},
		{nil, "10.0.0.5 127.0.0.1", forbidden},
		{nil, "::ffff:127.0.0.1", forbidden},
		{nil, "10.0.0.5 fe80::1%eth0", forbidden},
		{nil, "0.0.0.0", forbidden},
		{[]string{"tcp://127.0.0.1:*", "tcp://db.lan:*"}, "127.0.0.1", forbidden},
		{[]string{"tcp://db.lan:5432"}, "10.0.0.5", yes},
		{[]string{"tcp://db.lan:*"}, "10.0.0.5", yes},
		{[]string{"tcp://db.lan:5433"}, "10.0.0.5", local},
		{[]string{"tcp://10.0.0.0/8:*"}, "10.0.0.5", yes},
		{[]string{"tcp://10.0.0.0/8:*"}, "::ffff:10.0.0.5", yes},
		{[]string{"tcp://10.0.0.0/8:*"}, "10.0.0.5 192.0.2.1", local},
		{[]string{}, "10.0.0.5", local},
	} {
		l := List{}
		if c.list != nil {
			l = rules(t, c.list...)
		}
		var addrs []netip.Addr
		for f := range strings.FieldsSeq(c.answers) {
			addrs = append(addrs, netip.MustParseAddr(f))
		}
		if got := reasonOf(t, l.Answers(endpoint.MustParse("tcp://db.lan:5432"), addrs)); got != c.want {
			t.Errorf("list %q, answers %s: %v, want %v", c.list, c.answers, got, c.want)
		}
	}
}

func TestListenerMustBeInAWrittenList(t *testing.T) {
	e := endpoint.MustParse("tcp://0.0.0.0:80")
	if err := (List{}).Listen(e); err != nil {
		t.Errorf("without a list: %v", err)
	}
	if err := rules(t, "tcp://0.0.0.0:*").Listen(e); err != nil {
		t.Errorf("in the list: %v", err)
	}
	if got := reasonOf(t, rules(t, "tcp://127.0.0.0/8:*").Listen(e)); got != wire.ReasonLocalList {
		t.Errorf("not in the list: %v", got)
	}
	if err := rules(t, "stdio:").Listen(endpoint.MustParse("stdio:")); err != nil {
		t.Error(err)
	}
}

func TestBadRulesSayWhatIsWrong(t *testing.T) {
	for s, want := range map[string]string{
		"":                          "no scheme",
		"10.0.0.5:80":               "no scheme",
		"tcp://10.0.0.5":            "no port",
		"tcp://10.0.0.5:0":          "port",
		"tcp://10.0.0.5:080":        "port",
		"tcp://10.0.0.0/33:*":       "not a prefix",
		"tcp://10.0.0.1/8:*":        "10.0.0.0/8",
		"tcp://010.0.0.1/32:*":      "not a prefix",
		"tcp://127.1:*":             "neither a DNS name nor an IP address",
		"tcp://0x7f.1:*":            "neither a DNS name nor an IP address",
		"tcp://10.0.0.0/8:70000":    "port",
		"tcp://2001:db8::/32:*":     "brackets",
		"tcp://[10.0.0.0/8]:*":      "brackets",
		"tcp://[::ffff:0:0/96]:*":   "IPv4 prefix in IPv6 clothes",
		"tcp://*:80":                "DNS name",
		"sctp://10.0.0.0/8:*":       "unknown scheme",
		"unix://run/app.sock":       "not absolute",
		"unix:///run/../etc/*":      "not clean",
		"tcp://10.0.0.5:80\nallow":  "port",
		"http://10.0.0.5:80":        "unknown scheme",
		"tcp://[fe80::1%25eth0]:80": "zone",
	} {
		_, err := Parse(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): error %v, want one with %q", s, err, want)
		}
	}
}
