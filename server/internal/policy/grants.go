package policy

import (
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
			p.warn(at.key, "no portal %q is enrolled: what names it grants nothing until it is (netport-server issue portal %s --out DIR)", at.name, at.name)
		}
	}
	missing := make(map[string]bool)
	for _, at := range p.relays {
		if !isRelay(at.name) && !missing[at.name] {
			missing[at.name] = true
			p.warn(at.key, "no relay %q is enrolled: portals that must meet there cannot meet until it is (netport-server issue relay %s --address HOST --out DIR)", at.name, at.name)
		}
	}
	return nil
}

// Grants returns the permissions that the policy comes to for the enrolled
// portals at the time now, without versions. What names a portal that is not
// enrolled, or has ended, comes to nothing.
func (p *Policy) Grants(enrolled map[string]identity.KeyHash, now time.Time) []grant.Permission {
	var list []grant.Permission
	for _, f := range p.Forwards {
		exit, ok := enrolled[f.Exit]
		if !ok || f.ended(now) {
			continue
		}
		for _, name := range f.Entries {
			entry, ok := enrolled[name]
			if !ok {
				continue
			}
			list = append(list, grant.Permission{
				Forward: f.Name,
				Entry:   grant.Party{Name: name, Key: entry}, Listen: f.Listen,
				Exit: grant.Party{Name: f.Exit, Key: exit}, Target: f.Target,
				End: f.Until, Proxy: f.Proxy,
			})
		}
	}
	return list
}
