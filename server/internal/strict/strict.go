// Package strict is the signing of a policy away from the server: a server that is
// taken over can then route and deny, but grant nothing.
//
// The server says who is enrolled under which keys (Request). Where the policy key is,
// the operator's own policy is compiled for them (Sign): the request cannot add a word
// to it. What could be false in it are the keys, and so each name is compared with the
// key that it is known by there (Known); another one counts only on the operator's
// word. The server checks what comes back (Open) and puts it in force.
package strict

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
)

// MaxSigned bounds a request and what is signed, in bytes: it travels to the server in one
// request of package local. It is enough for policy.MaxGrants of a usual length.
const MaxSigned = 60 << 20

// signedContext begins what the policy key signs of a policy as a whole.
const signedContext = "netport-signed-policy/1\x00"

// Request is what a server asks to be signed.
type Request struct {
	Domain    string `json:"domain"`
	PolicyKey string `json:"policy_key"`
	// Version is the lowest that the server takes.
	Version uint64   `json:"version"`
	Portals []Portal `json:"portals"`
	Relays  []string `json:"relays"`
	Admins  []string `json:"admins,omitempty"`
	// Openings are of forwards on request, and wait to be signed.
	Openings []policy.Opening `json:"openings,omitempty"`
	// Authorities are whom the server's domain trusts (wire.Authorities, not signed).
	Authorities []byte `json:"authorities"`
}

// Portal is an enrolled portal.
type Portal struct {
	Name string           `json:"name"`
	Key  identity.KeyHash `json:"key"`
	Next identity.KeyHash `json:"next,omitzero"` // a second key, while it changes it
}

// Body is what was signed.
type Body struct {
	Domain  string            `json:"domain"`
	Version uint64            `json:"version"`
	Time    time.Time         `json:"time"`
	File    string            `json:"file"`
	Source  string            `json:"source"`
	Zones   map[string]string `json:"zones,omitempty"`
	Grants  [][]byte          `json:"grants"` // each with the signature of its own that portals look at
	// Complete (wire.GrantsComplete, of Version) and Authorities are signed in the same way.
	Complete    []byte `json:"complete"`
	Authorities []byte `json:"authorities"`
	// For are the portals, with the keys that are known where it was signed.
	For []registry.SignedPortal `json:"for"`
}

// Signed is a Body with a signature over all of its bytes.
type Signed struct {
	Body      json.RawMessage `json:"body"`
	Signature []byte          `json:"signature"`
}

func seal(b Body, key ed25519.PrivateKey) (Signed, error) {
	raw, err := json.Marshal(b)
	if err != nil {
		return Signed{}, err
	}
	if len(raw) > MaxSigned {
		return Signed{}, fmt.Errorf("what would be signed has %d bytes, and %d at most are possible: shorter names and fewer terms make it smaller", len(raw), MaxSigned)
	}
	return Signed{Body: raw, Signature: ed25519.Sign(key, append([]byte(signedContext), raw...))}, nil
}

// Opened is what a Signed holds. The permissions' own signatures are not checked.
type Opened struct {
	Body
	Permissions []grant.Grant
	Complete    wire.GrantsComplete
	Authorities wire.Authorities
}

// Open checks the signature of the whole and of the authorities, and reads it.
func Open(s Signed, domain string, key ed25519.PublicKey) (Opened, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, s.Body); err != nil || !ed25519.Verify(key, append([]byte(signedContext), compact.Bytes()...), s.Signature) {
		return Opened{}, fmt.Errorf("the policy key %s has not signed it, or it was altered since", grant.FormatKey(key))
	}
	var o Opened
	if err := json.Unmarshal(s.Body, &o.Body); err != nil {
		return Opened{}, errors.New("it is not what this version of netport-server signs")
	}
	if o.Domain != domain {
		return Opened{}, fmt.Errorf("it was signed for the domain %q, and this server's is %q", o.Domain, domain)
	}
	for _, b := range o.Grants {
		g, err := grant.Parse(b)
		if err != nil {
			return Opened{}, fmt.Errorf("a permission of it is broken: %w", err)
		}
		o.Permissions = append(o.Permissions, g)
	}
	var err error
	if o.Authorities, err = wire.ParseAuthorities(o.Body.Authorities); err != nil || !o.Authorities.SignedBy(key) {
		return Opened{}, errors.New("its authorities are broken or not signed")
	}
	if o.Complete, err = wire.ParseGrantsComplete(o.Body.Complete); err != nil || o.Complete.Version != o.Version || !o.Complete.SignedBy(key) {
		return Opened{}, errors.New("its version is not signed as portals want it: was it signed by an older netport-server?")
	}
	return o, nil
}
