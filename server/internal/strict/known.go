package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
)

// Known is what the operator's machine knows of the domain: it is what a request is
// compared with.
type Known struct {
	Domain      string                        `toml:"domain"`
	Version     uint64                        `toml:"version"` // signed last
	Authorities []identity.KeyHash            `toml:"authorities"`
	Portals     map[string][]identity.KeyHash `toml:"portals"`
	Relays      map[string][]identity.KeyHash `toml:"relays"`
	Servers     map[string][]identity.KeyHash `toml:"servers"`
	Admins      map[string][]identity.KeyHash `toml:"admins"`
}

// keys returns the keys of a role by name; nil for a role that nobody here signs for.
func (k *Known) keys(role identity.Role) map[string][]identity.KeyHash {
	switch role {
	case identity.Portal:
		return k.Portals
	case identity.Relay:
		return k.Relays
	case identity.Server:
		return k.Servers
	case identity.Admin:
		return k.Admins
	}
	return nil
}

// clone returns a copy that shares nothing, with all its tables.
func (k Known) clone() Known {
	k.Authorities = slices.Clone(k.Authorities)
	for _, table := range []*map[string][]identity.KeyHash{&k.Portals, &k.Relays, &k.Servers, &k.Admins} {
		next := make(map[string][]identity.KeyHash, len(*table))
		for name, keys := range *table {
			next[name] = slices.Clone(keys)
		}
		*table = next
	}
	return k
}

// LoadKnown reads the file of what is known; without one nothing is.
func LoadKnown(file string) (Known, error) {
	b, err := identity.ReadSecret(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Known{}, nil
	}
	if err != nil {
		return Known{}, err
	}
	var k Known
	if _, err := conffile.Parse(file, b, &k); err != nil {
		return Known{}, err
	}
	return k, nil
}

// Save writes it.
func (k Known) Save(file string) error { return identity.ReplaceFile(file, k.Encode(), 0o600) }

// Encode returns the file.
func (k Known) Encode() []byte {
	b := fmt.Appendf(nil, `# What "netport-server policy sign" and "ca sign" know of the domain: they sign for no
# other keys. Keep it with the policy key and the CA key.
domain = %q
version = %d
authorities = %s
`, k.Domain, k.Version, keyList(k.Authorities))
	for _, table := range []struct {
		title string
		keys  map[string][]identity.KeyHash
	}{{"portals", k.Portals}, {"relays", k.Relays}, {"servers", k.Servers}, {"admins", k.Admins}} {
		b = fmt.Appendf(b, "\n[%s]\n", table.title)
		for _, name := range slices.Sorted(maps.Keys(table.keys)) {
			b = fmt.Appendf(b, "%q = %s\n", name, keyList(table.keys[name]))
		}
	}
	return b
}

func keyList(list []identity.KeyHash) string {
	var b bytes.Buffer
	for i, key := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		text, _ := key.MarshalText()
		fmt.Fprintf(&b, "%q", text)
	}
	return "[" + b.String() + "]"
}

// Accepted are keys that count on the operator's word.
type Accepted struct {
	Portals     map[string][]identity.KeyHash
	Authorities []identity.KeyHash
	Openings    []policy.OpeningKey // of forwards on request
}

// Stranger is a key of a request that is not known.
type Stranger struct {
	Portal string // "": an authority
	Key    identity.KeyHash
	Other  bool // the name is known by another key
}

// Flag returns the option by which the key is accepted.
func (s Stranger) Flag() string {
	text, _ := s.Key.MarshalText()
	if s.Portal == "" {
		return "--accept-ca " + string(text)
	}
	return "--accept " + s.Portal + "=" + string(text)
}

// learn compares a request with what is known, and returns what is known after it, and
// who is not known and was not accepted. later are the second keys of those whose first
// is known: they can wait, for their portals go on with the first.
func (k Known) learn(q Request, authorities wire.Authorities, accepted Accepted) (after Known, strangers, later []Stranger, err error) {
	// Who is not enrolled any more is forgotten: his key may have been revoked.
	next := k.clone()
	next.Domain, next.Authorities, next.Portals = q.Domain, nil, make(map[string][]identity.KeyHash)
	maps.DeleteFunc(next.Relays, func(name string, _ []identity.KeyHash) bool { return !slices.Contains(q.Relays, name) })
	maps.DeleteFunc(next.Admins, func(name string, _ []identity.KeyHash) bool { return !slices.Contains(q.Admins, name) })
	for _, p := range q.Portals {
		if err := identity.CheckName(p.Name); err != nil {
			return Known{}, nil, nil, err
		}
		known := k.Portals[p.Name]
		var keys []identity.KeyHash
		for _, key := range []identity.KeyHash{p.Key, p.Next} {
			if key.IsZero() {
				continue
			}
			if !slices.Contains(known, key) && !slices.Contains(accepted.Portals[p.Name], key) {
				s := Stranger{Portal: p.Name, Key: key, Other: len(known) > 0}
				if key == p.Next {
					later = append(later, s)
					continue
				}
				strangers = append(strangers, s)
			}
			keys = append(keys, key)
		}
		next.Portals[p.Name] = keys
	}
	certificates, err := identity.ParseChain(authorities.Certificates)
	if err != nil {
		return Known{}, nil, nil, fmt.Errorf("the authorities: %w", err)
	}
	for _, c := range certificates {
		key := identity.HashKey(c)
		if !slices.Contains(k.Authorities, key) && !slices.Contains(accepted.Authorities, key) {
			strangers = append(strangers, Stranger{Key: key, Other: len(k.Authorities) > 0})
		}
		next.Authorities = append(next.Authorities, key)
	}
	return next, strangers, later, nil
}

// check reports why a request is not for this domain and key.
func (k Known) check(q Request, public string) error {
	switch {
	case k.Domain != "" && q.Domain != k.Domain:
		return fmt.Errorf("the request is of the domain %q, and what is known here is of %q", q.Domain, k.Domain)
	case q.PolicyKey != public:
		return fmt.Errorf("the server's portals trust the policy key %s, and the key here is %s", q.PolicyKey, public)
	}
	if _, err := grant.ParseKey(q.PolicyKey); err != nil {
		return err
	}
	return nil
}
