package grants

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

func clients(t *testing.T, prefixes string) grant.Clients {
	t.Helper()
	var list []netip.Prefix
	for f := range strings.FieldsSeq(prefixes) {
		list = append(list, netip.MustParsePrefix(f))
	}
	c, err := grant.NewClients(list)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOnlyTighterTermsCut: wider ones, and limits that only change, do not.
func TestOnlyTighterTermsCut(t *testing.T) {
	for _, c := range []struct {
		what     string
		was, now grant.Terms
		want     wire.Reason
	}{
		{"the same", grant.Terms{Rate: 5}, grant.Terms{Rate: 5}, wire.ReasonNone},
		{"a first rate", grant.Terms{}, grant.Terms{Rate: 5}, wire.ReasonLimit},
		{"a first volume", grant.Terms{Streams: 3}, grant.Terms{Month: 5}, wire.ReasonLimit},
		{"a volume beside a rate", grant.Terms{Rate: 5}, grant.Terms{Rate: 5, Month: 5}, wire.ReasonNone},
		{"a lower rate", grant.Terms{Rate: 5}, grant.Terms{Rate: 1}, wire.ReasonNone},
		{"no limit any more", grant.Terms{Rate: 5, Month: 5}, grant.Terms{}, wire.ReasonNone},
		{"fewer streams", grant.Terms{Streams: 5}, grant.Terms{Streams: 1}, wire.ReasonNone},
		{"direct only", grant.Terms{}, grant.Terms{Direct: grant.DirectOnly}, wire.ReasonNotDirect},
		{"never direct", grant.Terms{Direct: grant.DirectOnly}, grant.Terms{Direct: grant.DirectNever}, wire.ReasonNotDirect},
		{"any path", grant.Terms{Direct: grant.DirectOnly}, grant.Terms{}, wire.ReasonNone},
		{"first clients", grant.Terms{}, grant.Terms{Clients: clients(t, "10.0.0.0/8")}, wire.ReasonClientForbidden},
		{"one more", grant.Terms{Clients: clients(t, "10.0.0.0/8")}, grant.Terms{Clients: clients(t, "10.0.0.0/8 192.168.0.0/16")}, wire.ReasonNone},
		{"a wider one", grant.Terms{Clients: clients(t, "10.1.0.0/16")}, grant.Terms{Clients: clients(t, "10.0.0.0/8")}, wire.ReasonNone},
		{"a narrower one", grant.Terms{Clients: clients(t, "10.0.0.0/8")}, grant.Terms{Clients: clients(t, "10.1.0.0/16")}, wire.ReasonClientForbidden},
		{"another", grant.Terms{Clients: clients(t, "10.0.0.0/8")}, grant.Terms{Clients: clients(t, "2001:db8::/32")}, wire.ReasonClientForbidden},
		{"all", grant.Terms{Clients: clients(t, "10.0.0.0/8")}, grant.Terms{}, wire.ReasonNone},
	} {
		change := Change{Kind: Renew}
		change.Before.Terms, change.Grant.Terms = c.was, c.now
		if got := change.Tightened(); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
