package grant

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	permissionContext = "netport-permission/2\x00"
	stampContext      = "netport-stamp/1\x00"

	// StampLife is how long a server's stamp lasts.
	StampLife = 24 * time.Hour
	// StampSlack is how far a stamp is dated back, for portals whose clocks
	// are behind.
	StampSlack = time.Hour
	// maxStamp bounds what a portal takes for a stamp, whatever it says.
	maxStamp = 7 * 24 * time.Hour
)

// Grant is a permission with its two signatures. Make one with Sign and Stamp,
// or with Parse and Verify; a parsed grant proves nothing before Verify.
type Grant struct {
	Permission
	From, Until time.Time // the stamp; whole seconds

	policySignature [ed25519.SignatureSize]byte
	stampSignature  [ed25519.SignatureSize]byte
}

// Sign returns a grant of the permission that still lacks its stamp. The
// permission must pass Check.
func Sign(p Permission, policy ed25519.PrivateKey) Grant {
	g := Grant{Permission: p}
	copy(g.policySignature[:], ed25519.Sign(policy, permissionMessage(p.AppendTo(nil))))
	return g
}

// Stamp returns g with a fresh stamp for StampLife from now on.
func (g Grant) Stamp(stamp ed25519.PrivateKey, now time.Time) Grant {
	g.From = now.Add(-StampSlack).UTC().Truncate(time.Second)
	g.Until = now.Add(StampLife).UTC().Truncate(time.Second)
	copy(g.stampSignature[:], ed25519.Sign(stamp, g.stampMessage()))
	return g
}

// Keys are the public keys whose signatures a portal takes.
type Keys struct {
	Policy []ed25519.PublicKey // pinned when the portal was enrolled
	Stamp  []ed25519.PublicKey // told by a proven server
}

// Verify checks both signatures. It returns ReasonNone if they are right.
func (g Grant) Verify(keys Keys) wire.Reason {
	if !signed(keys.Policy, permissionMessage(g.Permission.AppendTo(nil)), g.policySignature[:]) ||
		!signed(keys.Stamp, g.stampMessage(), g.stampSignature[:]) {
		return wire.ReasonBadSignature
	}
	return wire.ReasonNone
}

// Permitted reports whether the policy key has signed the permission: half of Verify,
// for who has no stamp yet.
func (g Grant) Permitted(policy ed25519.PublicKey) bool {
	return signed([]ed25519.PublicKey{policy}, permissionMessage(g.Permission.AppendTo(nil)), g.policySignature[:])
}

// Secret returns a key that those who hold the grant have in common: the server and its two
// portals. It stays the same for as long as the permission does.
func (g Grant) Secret() [32]byte {
	h := hmac.New(sha256.New, g.policySignature[:])
	h.Write([]byte("netport grant secret"))
	return [32]byte(h.Sum(nil))
}

// Valid reports whether g holds at the time now: ReasonNone, or
// ReasonGrantExpired or ReasonOutsideHours.
func (g Grant) Valid(now time.Time) wire.Reason {
	if now.Before(g.From) || !now.Before(g.Ends()) || g.Until.Sub(g.From) > maxStamp {
		return wire.ReasonGrantExpired
	}
	if !g.Hours.Open(now) {
		return wire.ReasonOutsideHours
	}
	return wire.ReasonNone
}

// Next returns the first moment after now at which Valid may answer otherwise than
// now, as far as the hours can be told ahead (Hours.Next); zero if g is over for
// good.
func (g Grant) Next(now time.Time) time.Time {
	switch {
	case !now.Before(g.Ends()) || g.Until.Sub(g.From) > maxStamp:
		return time.Time{}
	case now.Before(g.From):
		return g.From
	}
	if t := g.Hours.Next(now); !t.IsZero() && t.Before(g.Ends()) {
		return t
	}
	return g.Ends()
}

// Ends returns when g ends unless it is stamped anew: the end of its stamp or
// of its permission, whichever is first.
func (g Grant) Ends() time.Time {
	if !g.End.IsZero() && g.End.Before(g.Until) {
		return g.End
	}
	return g.Until
}

// AppendTo appends the encoding of the grant: at most wire.MaxGrant bytes.
func (g Grant) AppendTo(b []byte) []byte {
	b = wire.AppendBlob(b, g.Permission.AppendTo(nil))
	b = append(b, g.policySignature[:]...)
	b = appendTime(b, g.From)
	b = appendTime(b, g.Until)
	return append(b, g.stampSignature[:]...)
}

// Parse reads a grant. It checks its form, not its signatures.
func Parse(b []byte) (Grant, error) {
	r := wire.NewReader(b)
	permission := r.Blob(wire.MaxGrant)
	var g Grant
	r.Copy(g.policySignature[:])
	g.From = readTime(&r)
	g.Until = readTime(&r)
	r.Copy(g.stampSignature[:])
	if err := r.Done(); err != nil {
		return Grant{}, err
	}
	p, err := ParsePermission(permission)
	if err != nil {
		return Grant{}, err
	}
	g.Permission = p
	return g, nil
}

func permissionMessage(permission []byte) []byte {
	return append([]byte(permissionContext), permission...)
}

func (g Grant) stampMessage() []byte {
	sum := sha256.Sum256(g.Permission.AppendTo(nil))
	b := append([]byte(stampContext), sum[:]...)
	return appendTime(appendTime(b, g.From), g.Until)
}

func signed(keys []ed25519.PublicKey, message, signature []byte) bool {
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize && ed25519.Verify(k, message, signature) {
			return true
		}
	}
	return false
}

const keyPrefix = "ed25519:"

// FormatKey writes a public key as config files hold it.
func FormatKey(k ed25519.PublicKey) string {
	return keyPrefix + base64.StdEncoding.EncodeToString(k)
}

// ParseKey reads what FormatKey writes, and nothing else.
func ParseKey(s string) (ed25519.PublicKey, error) {
	k, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, keyPrefix))
	if err == nil && len(k) == ed25519.PublicKeySize && FormatKey(k) == s {
		return k, nil
	}
	return nil, fmt.Errorf("%q is no public key: it is written %sBASE64", s, keyPrefix)
}
