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

// rawPolicy is the file as it is written. A value of type any may have more than one
// form, or one that is easily confused with another.
type rawPolicy struct {
	Domain  string              `toml:"domain"`
	Groups  map[string][]string `toml:"groups"`
	Forward []rawForward        `toml:"forward"`
	Test    []rawTest           `toml:"test"`
}

type rawForward struct {
	Name          string `toml:"name"`
	From          string `toml:"from"`
	To            any    `toml:"to"`
	Until         any    `toml:"until"`
	Hours         any    `toml:"hours"`
	Zone          string `toml:"zone"`
	ProxyProtocol *int   `toml:"proxy_protocol"`
	Rate          string `toml:"rate"`
	Streams       *int64 `toml:"streams"`
	Month         string `toml:"month"`
	Clients       any    `toml:"clients"`
	Direct        string `toml:"direct"`
	Relay         string `toml:"relay"`
	OnRequest     string `toml:"on_request"`
}

type rawTest struct {
	Allow  string `toml:"allow"`
	Deny   string `toml:"deny"`
	At     any    `toml:"at"`
	Client string `toml:"client"`
	Opened bool   `toml:"opened"`
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
	p.Forwards = make([]Forward, 0, len(raw.Forward))
	size := newTally()
	for i := range raw.Forward {
		f, err := p.readForward(&raw.Forward[i], fmt.Sprintf("forward[%d]", i))
		if err != nil {
			return err
		}
		if _, ok := p.byName[f.Name]; ok {
			return p.file.Errorf(f.key+".name", "two forwards are named %q", f.Name)
		}
		p.byName[f.Name] = i
		p.Forwards = append(p.Forwards, f)
		if err := size.add(&f); err != nil {
			return p.file.Errorf(f.key, "%v", err)
		}
		for _, entry := range f.Entries {
			if err := p.listen(entry, i, size); err != nil {
				return err
			}
			if err := p.agree(entry, &f); err != nil {
				return err
			}
		}
		if f.ended(now) {
			p.warn(f.key+".until", "forward %q ended at %s: it grants nothing", f.Name, f.until.Format(time.RFC3339))
		}
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
	for _, step := range []func(*Forward, *rawForward) error{
		p.readFrom, p.readTo, p.readEntries, p.readUntil, p.readHours, p.readLimits, p.readClients, p.readPaths, p.readOnRequest,
	} {
		if err := step(&f, raw); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (p *Policy) readFrom(f *Forward, raw *rawForward) (err error) {
	key := f.key + ".from"
	if raw.From == "" {
		return p.file.Errorf(key, "forward %q has no \"from\": write from = \"NAME ENDPOINT\"", f.Name)
	}
	if f.From, f.Listen, err = parseEnd(raw.From); err == nil {
		err = f.Listen.First.CheckListener()
	}
	if err != nil {
		return p.file.Errorf(key, "forward %q: %v", f.Name, err)
	}
	return nil
}

func (p *Policy) readTo(f *Forward, raw *rawForward) error {
	if !p.file.Has(f.key+".to") || raw.To == "" {
		return p.file.Errorf(f.key+".to", "forward %q has no \"to\": write to = \"NAME ENDPOINT\"", f.Name)
	}
	texts, err := p.readList(f, "to", `"factory-1 tcp://10.0.0.5:80"`, raw.To, MaxTargets)
	if err != nil {
		return err
	}
	for _, t := range texts {
		exit, dial, err := parseEnd(t.text)
		if err == nil {
			err = p.checkTarget(f, exit, dial)
		}
		if err != nil {
			return p.file.Errorf(t.key, "forward %q: %v", f.Name, err)
		}
		f.To = append(f.To, Target{exit, dial})
		p.used = append(p.used, place{exit, t.key})
	}
	return nil
}

func (p *Policy) checkTarget(f *Forward, exit string, dial endpoint.Range) error {
	if err := dial.First.CheckTarget(); err != nil {
		return err
	}
	if _, ok := p.Groups[exit]; ok {
		return fmt.Errorf("%q is a group: a forward leads to portals", exit)
	}
	if f.Listen.First.Datagram() != dial.First.Datagram() {
		return fmt.Errorf("from %s to %s: datagrams and streams do not mix", f.Listen, dial)
	}
	if f.Listen.Ports != dial.Ports {
		return fmt.Errorf("from %s to %s: %d ports and %d: a range leads to one that is as long, port by port", f.Listen, dial, f.Listen.Ports, dial.Ports)
	}
	if slices.Contains(f.To, Target{exit, dial}) {
		return fmt.Errorf("%s %s is named twice", exit, dial)
	}
	return nil
}

// parseEnd reads "NAME ENDPOINT".
func parseEnd(text string) (string, endpoint.Range, error) {
	parts := strings.Fields(text)
	if len(parts) != 2 {
		return "", endpoint.Range{}, fmt.Errorf("%q is not a name and an endpoint, as in \"factory-1 tcp://10.0.0.5:80\"", text)
	}
	if err := identity.CheckName(parts[0]); err != nil {
		return "", endpoint.Range{}, err
	}
	e, err := endpoint.ParseRange(parts[1])
	return parts[0], e, err
}

// readEntries finds the portals that f is from: a portal that it leads to gets no
// listener to reach itself.
func (p *Policy) readEntries(f *Forward, _ *rawForward) error {
	members, ok := p.Groups[f.From]
	if !ok {
		for _, t := range f.To {
			if t.Exit == f.From {
				return p.file.Errorf(f.key+".to", "forward %q leads from %q to itself", f.Name, f.From)
			}
		}
		p.used = append(p.used, place{f.From, f.key + ".from"})
		f.Entries = []string{f.From}
		return nil
	}
	for _, m := range members {
		others := 0
		for _, t := range f.To {
			if t.Exit != m {
				others++
			}
		}
		switch {
		case others == 0:
			p.warn(f.key+".from", "forward %q: %q is in the group %q and is where the forward leads: it gets no listener", f.Name, m, f.From)
			continue
		case others < len(f.To):
			p.warn(f.key+".from", "forward %q: %q is in the group %q and is where the forward leads, among others: it is led to the others only", f.Name, m, f.From)
		}
		f.Entries = append(f.Entries, m)
	}
	return nil
}

// item is one text of a list, with its place.
type item struct{ text, key string }

// readList reads a text or a list of texts.
func (p *Policy) readList(f *Forward, what, example string, value any, most int) ([]item, error) {
	key := f.key + "." + what
	switch v := value.(type) {
	case string:
		return []item{{v, key}}, nil
	case []any:
		if len(v) == 0 || len(v) > most {
			return nil, p.file.Errorf(key, "forward %q: %s has %d values: 1 to %d are allowed", f.Name, what, len(v), most)
		}
		list := make([]item, len(v))
		for i, e := range v {
			key := fmt.Sprintf("%s[%d]", key, i)
			text, ok := e.(string)
			if !ok {
				return nil, p.file.Errorf(key, "forward %q: a value of the wrong type: write %s = [%s]", f.Name, what, example)
			}
			list[i] = item{text, key}
		}
		return list, nil
	}
	return nil, p.file.Errorf(key, "forward %q: %s is a text or a list of texts: write %s = [%s]", f.Name, what, what, example)
}

// readMoment reads a date and time with a zone.
func readMoment(what string, value any) (time.Time, error) {
	t, ok := value.(time.Time)
	if !ok {
		return t, fmt.Errorf("%s is a date and time with a zone, as in 2027-01-31T18:00:00Z", what)
	}
	if y := t.UTC().Year(); y < 1970 || y > 9999 {
		return t, fmt.Errorf("%s is a time from 1970 to 9999", what)
	}
	return t.UTC().Truncate(time.Second), nil
}

func (p *Policy) readUntil(f *Forward, raw *rawForward) (err error) {
	if raw.Until == nil {
		return nil
	}
	if f.until, err = readMoment("until", raw.Until); err != nil {
		return p.file.Errorf(f.key+".until", "forward %q: %v", f.Name, err)
	}
	return nil
}

func (f *Forward) ended(now time.Time) bool { return !f.until.IsZero() && !now.Before(f.until) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// proxyVersion checks a version of the PROXY protocol.
func proxyVersion(v int, datagram bool) (grant.Proxy, error) {
	if v != 1 && v != 2 {
		return 0, fmt.Errorf("proxy_protocol is 1 or 2")
	}
	if datagram {
		return 0, fmt.Errorf("there is no PROXY protocol for datagrams")
	}
	return grant.Proxy(v), nil
}
