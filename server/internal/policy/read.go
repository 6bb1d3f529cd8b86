package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
)

// rawPolicy is the file as it is written.
type rawPolicy struct {
	Domain  string              `toml:"domain"`
	Groups  map[string][]string `toml:"groups"`
	Forward []rawForward        `toml:"forward"`
	Test    []rawTest           `toml:"test"`
}

type rawForward struct {
	Name          string `toml:"name"`
	From          string `toml:"from"`
	To            string `toml:"to"`
	Until         any    `toml:"until"` // any: a time without a zone is told apart from one with
	ProxyProtocol *int   `toml:"proxy_protocol"`
	Relay         string `toml:"relay"`
}

type rawTest struct {
	Allow string `toml:"allow"`
	Deny  string `toml:"deny"`
}

func (p *Policy) readDomain(raw *rawPolicy, _ time.Time) error {
	if raw.Domain == "" {
		if len(raw.Groups)+len(raw.Forward)+len(raw.Test) == 0 {
			return nil // an empty file is a policy: it denies all
		}
		return p.file.Errorf("domain", "the domain is missing: write domain = \"example.org\", as it was given to init")
	}
	if err := identity.CheckName(raw.Domain); err != nil {
		return p.file.Errorf("domain", "domain: %v", err)
	}
	return nil
}

func (p *Policy) readGroups(raw *rawPolicy, _ time.Time) error {
	p.Groups = make(map[string][]string, len(raw.Groups))
	for _, name := range sortedKeys(raw.Groups) {
		key := "groups." + name
		if err := identity.CheckName(name); err != nil {
			return p.file.Errorf(key, "group: %v", err)
		}
		members := raw.Groups[name]
		if len(members) == 0 {
			p.warn(key, "group %q is empty: what it is named in grants nothing", name)
		}
		seen := make(map[string]bool, len(members))
		for i, m := range members {
			key := fmt.Sprintf("%s[%d]", key, i)
			if err := identity.CheckName(m); err != nil {
				return p.file.Errorf(key, "group %q: portal %v", name, err)
			}
			if _, ok := raw.Groups[m]; ok {
				return p.file.Errorf(key, "group %q: %q is a group: groups hold portals only", name, m)
			}
			if seen[m] {
				return p.file.Errorf(key, "group %q names %q twice", name, m)
			}
			seen[m] = true
			p.used = append(p.used, place{m, key})
		}
		p.Groups[name] = members
	}
	return nil
}

func (p *Policy) readForwards(raw *rawPolicy, now time.Time) error {
	names := make(map[string]bool, len(raw.Forward))
	listeners := make(map[listener]string)
	perPortal := make(map[string]int)
	count := 0
	for i := range raw.Forward {
		f, err := p.readForward(&raw.Forward[i], fmt.Sprintf("forward[%d]", i))
		if err != nil {
			return err
		}
		if names[f.Name] {
			return p.file.Errorf(f.key+".name", "two forwards are named %q", f.Name)
		}
		names[f.Name] = true
		if count += len(f.Entries); count > MaxGrants {
			return p.file.Errorf(f.key, "the policy comes to more than %d grants", MaxGrants)
		}
		for _, entry := range f.Entries {
			l := listenerOf(entry, f)
			if other, ok := listeners[l]; ok {
				return p.file.Errorf(f.key+".from", "forward %q: %s listens at %s for the forward %q already", f.Name, entry, f.Listen, other)
			}
			listeners[l] = f.Name
			for _, portal := range []string{entry, f.Exit} {
				if perPortal[portal]++; perPortal[portal] > MaxPerPortal {
					return p.file.Errorf(f.key, "the portal %q comes to more than %d grants", portal, MaxPerPortal)
				}
			}
			p.allowed[pair{entry, f.Listen, f.Exit, f.Target}] = f.Until
			if err := p.pin(entry, f); err != nil {
				return err
			}
		}
		if f.ended(now) {
			p.warn(f.key+".until", "forward %q ended at %s: it grants nothing", f.Name, f.Until.Format(time.RFC3339))
		}
		p.Forwards = append(p.Forwards, f)
	}
	return nil
}

func (p *Policy) readForward(raw *rawForward, key string) (Forward, error) {
	f := Forward{Name: raw.Name, key: key}
	if raw.Name == "" {
		return f, p.file.Errorf(key, "a forward without a name: write name = \"...\"")
	}
	if err := identity.CheckName(raw.Name); err != nil {
		return f, p.file.Errorf(key+".name", "forward: %v", err)
	}
	var err error
	if f.From, f.Listen, err = p.readEnd(key+".from", f.Name, "from", raw.From); err != nil {
		return f, err
	}
	if err := f.Listen.CheckListener(); err != nil {
		return f, p.file.Errorf(key+".from", "forward %q: %v", f.Name, err)
	}
	if f.Exit, f.Target, err = p.readEnd(key+".to", f.Name, "to", raw.To); err != nil {
		return f, err
	}
	if err := f.Target.CheckTarget(); err != nil {
		return f, p.file.Errorf(key+".to", "forward %q: %v", f.Name, err)
	}
	if _, ok := p.Groups[f.Exit]; ok {
		return f, p.file.Errorf(key+".to", "forward %q: %q is a group: a forward leads to one portal", f.Name, f.Exit)
	}
	if f.Listen.Datagram() != f.Target.Datagram() {
		return f, p.file.Errorf(key+".to", "forward %q: from %s to %s: datagrams and streams do not mix", f.Name, f.Listen, f.Target)
	}
	if err := p.readEntries(&f); err != nil {
		return f, err
	}
	if err := p.readUntil(&f, raw.Until); err != nil {
		return f, err
	}
	if v := raw.ProxyProtocol; v != nil {
		if *v != 1 && *v != 2 {
			return f, p.file.Errorf(key+".proxy_protocol", "forward %q: proxy_protocol is 1 or 2", f.Name)
		}
		if f.Target.Datagram() {
			return f, p.file.Errorf(key+".proxy_protocol", "forward %q: there is no PROXY protocol for datagrams", f.Name)
		}
		f.Proxy = grant.Proxy(*v)
	}
	if f.Relay = raw.Relay; f.Relay != "" {
		if err := identity.CheckName(f.Relay); err != nil {
			return f, p.file.Errorf(key+".relay", "forward %q: relay %v", f.Name, err)
		}
		p.relays = append(p.relays, place{f.Relay, key + ".relay"})
	}
	return f, nil
}

// readEnd reads "NAME ENDPOINT".
func (p *Policy) readEnd(key, forward, what, text string) (string, endpoint.Endpoint, error) {
	if text == "" {
		return "", endpoint.Endpoint{}, p.file.Errorf(key, "forward %q has no %q: write %s = \"NAME ENDPOINT\"", forward, what, what)
	}
	name, e, err := parseEnd(text)
	if err != nil {
		return "", endpoint.Endpoint{}, p.file.Errorf(key, "forward %q: %v", forward, err)
	}
	return name, e, nil
}

func parseEnd(text string) (string, endpoint.Endpoint, error) {
	parts := strings.Fields(text)
	if len(parts) != 2 {
		return "", endpoint.Endpoint{}, fmt.Errorf("%q is not a name and an endpoint, as in \"factory-1 tcp://10.0.0.5:80\"", text)
	}
	if err := identity.CheckName(parts[0]); err != nil {
		return "", endpoint.Endpoint{}, err
	}
	e, err := endpoint.Parse(parts[1])
	return parts[0], e, err
}

// readEntries finds the portals that f is from.
func (p *Policy) readEntries(f *Forward) error {
	p.used = append(p.used, place{f.Exit, f.key + ".to"})
	members, ok := p.Groups[f.From]
	if !ok {
		if f.From == f.Exit {
			return p.file.Errorf(f.key+".to", "forward %q leads from %q to itself", f.Name, f.Exit)
		}
		p.used = append(p.used, place{f.From, f.key + ".from"})
		f.Entries = []string{f.From}
		return nil
	}
	for _, m := range members {
		if m == f.Exit {
			p.warn(f.key+".from", "forward %q: %q is in the group %q and is where the forward leads: it gets no listener", f.Name, m, f.From)
			continue
		}
		f.Entries = append(f.Entries, m)
	}
	return nil
}

func (p *Policy) readUntil(f *Forward, value any) error {
	switch v := value.(type) {
	case nil:
		return nil
	case time.Time:
		if y := v.UTC().Year(); y < 1970 || y > 9999 {
			return p.file.Errorf(f.key+".until", "forward %q: until is a time from 1970 to 9999", f.Name)
		}
		f.Until = v.UTC().Truncate(time.Second)
		return nil
	}
	return p.file.Errorf(f.key+".until", "forward %q: until is a date and time with a zone, as in 2027-01-31T18:00:00Z", f.Name)
}

func (f *Forward) ended(now time.Time) bool { return !f.Until.IsZero() && !now.Before(f.Until) }

// listener is what only one forward can have. Connections to "stdio:" name
// their target, so there each target is a listener of its own.
type listener struct {
	entry  string
	listen endpoint.Endpoint
	exit   string
	target endpoint.Endpoint
}

func listenerOf(entry string, f Forward) listener {
	if f.Listen.Scheme() == endpoint.Stdio {
		return listener{entry, f.Listen, f.Exit, f.Target}
	}
	return listener{entry: entry, listen: f.Listen}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
