package policy

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
)

// CheckNames reports what only the server can tell: a domain that is not its
// own, and a group that is named like an enrolled portal. A portal or relay that
// is not enrolled is a warning.
func (p *Policy) CheckNames(domain string, enrolled map[string]identity.KeyHash, isRelay func(name string) bool) error {
	if p.Domain != "" && p.Domain != domain {
		return p.file.Errorf("domain", "the policy is for the domain %q, and this server's is %q", p.Domain, domain)
	}
	for _, name := range sortedKeys(p.Groups) {
		if _, ok := enrolled[name]; ok {
			return p.file.Errorf("groups."+name, "the group %q is named like an enrolled portal: groups and portals share one space of names", name)
		}
	}
	warned := make(map[string]bool)
	for _, at := range p.used {
		if _, ok := enrolled[at.name]; !ok && !warned[at.name] {
			warned[at.name] = true
			p.warn(at.key, "no portal %q is enrolled: what names it grants nothing until it is (netport-server invite portal %s)", at.name, at.name)
		}
	}
	missing := make(map[string]bool)
	for _, at := range p.relays {
		if !isRelay(at.name) && !missing[at.name] {
			missing[at.name] = true
			p.warn(at.key, "no relay %q is enrolled: portals that must meet there cannot meet until it is (netport-server invite relay %s --address HOST)", at.name, at.name)
		}
	}
	return nil
}

// Size returns how many grants the policy comes to when all its portals are
// enrolled, with those that are granted on request.
func (p *Policy) Size() int {
	t := newTally()
	for i := range p.Forwards {
		t.add(&p.Forwards[i]) // as it was counted when it was read
	}
	return t.grants
}

// Grants returns the permissions that the policy comes to for the enrolled
// portals at the time now, without versions. What names a portal that is not
// enrolled, has ended, or is granted on request and not open, comes to nothing.
func (p *Policy) Grants(enrolled map[string]identity.KeyHash, open Openings, now time.Time) []grant.Permission {
	return p.GrantsOf("", enrolled, open, now)
}

// GrantsOf returns those of Grants that a portal has part in; "" for all.
func (p *Policy) GrantsOf(portal string, enrolled map[string]identity.KeyHash, open Openings, now time.Time) []grant.Permission {
	var list []grant.Permission
	for i := range p.Forwards {
		f := &p.Forwards[i]
		if f.ended(now) {
			continue
		}
		isExit := slices.ContainsFunc(f.To, func(t Target) bool { return t.Exit == portal })
		for _, name := range f.Entries {
			key, ok := enrolled[name]
			if !ok || portal != "" && portal != name && !isExit {
				continue
			}
			end, ok := open.end(f, name, now)
			if !ok {
				continue
			}
			before := len(list)
			list = f.permissions(list, grant.Party{Name: name, Key: key}, end, enrolled)
			if portal != "" && portal != name {
				other := slices.DeleteFunc(list[before:], func(p grant.Permission) bool { return p.Exit.Name != portal })
				list = list[:before+len(other)]
			}
		}
	}
	return list
}

// permissions appends those of f for one of its entries.
func (f *Forward) permissions(list []grant.Permission, entry grant.Party, end time.Time, enrolled map[string]identity.KeyHash) []grant.Permission {
	for rank, to := range f.leads(entry.Name) {
		key, ok := enrolled[to.Exit]
		if !ok {
			continue
		}
		for n := range f.Listen.Ports {
			list = append(list, grant.Permission{
				Forward: f.Name, Entry: entry, Listen: f.Listen.At(n),
				Exit: grant.Party{Name: to.Exit, Key: key}, Target: to.Dial.At(n),
				End: end, Proxy: f.proxy, Rank: uint8(rank), Terms: f.terms,
			})
		}
	}
	return list
}
