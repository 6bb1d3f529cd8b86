package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/identity"
)

// MaxTrusted is how many authorities a domain may trust at once.
const MaxTrusted = 8

// Bundle is whom a domain trusts, and who issues in it. It is constant once made.
type Bundle struct {
	// Version rises with every change.
	Version uint64
	// Trusted are the authorities whose certificates count.
	Trusted []*x509.Certificate
	// Issuing is the key of the authority that issues; zero if that is not known,
	// for it issues elsewhere.
	Issuing identity.KeyHash
	// Issuer is the certificate of the issuing authority; nil if it is elsewhere.
	Issuer *x509.Certificate
	// Above goes along with every leaf that Issuer makes.
	Above []*x509.Certificate
	// KeyFile is the name of the issuing authority's key file, in the folder of
	// ca_key; empty: ca_key itself.
	KeyFile string
}

// First is the bundle that a configuration begins with: the certificates of its
// CA file, of which own, if not nil, is the one that issues.
func First(trusted []*x509.Certificate, own *x509.Certificate) Bundle {
	b := Bundle{Version: 1, Trusted: trusted}
	if own != nil {
		b.Issuer, b.Issuing = own, identity.HashKey(own)
		if !selfSigned(own) { // an intermediate: its root is what is trusted
			b.Above = []*x509.Certificate{own}
		}
	}
	return b
}

// Has reports whether the authority with this key is trusted.
func (b Bundle) Has(key identity.KeyHash) bool {
	return slices.ContainsFunc(b.Trusted, func(c *x509.Certificate) bool { return identity.HashKey(c) == key })
}

// Valid returns the trusted authorities that have not ended.
func (b Bundle) Valid(now time.Time) []*x509.Certificate {
	var list []*x509.Certificate
	for _, c := range b.Trusted {
		if !now.After(c.NotAfter) {
			list = append(list, c)
		}
	}
	return list
}

// Install returns the bundle in which the first certificate of chain issues, the
// others being what is above it. A root among them is trusted from then on, and a
// vouching certificate of the authority that issued until now, if there is one,
// goes along with every leaf, so that who has not heard of the root yet takes
// them.
func (b Bundle) Install(chain []*x509.Certificate, keyFile string, vouched *x509.Certificate, now time.Time) (Bundle, error) {
	if len(chain) == 0 {
		return b, errors.New("there is no certificate")
	}
	own := chain[0]
	next := Bundle{
		Version: b.Version + 1, Trusted: slices.Clone(b.Trusted),
		Issuer: own, Issuing: identity.HashKey(own), KeyFile: keyFile,
	}
	for _, c := range chain {
		switch {
		case !c.IsCA:
			return b, fmt.Errorf("%q is no CA: it cannot issue", c.Subject.CommonName)
		case now.Before(c.NotBefore) || now.After(c.NotAfter):
			return b, fmt.Errorf("the CA %q is valid from %s to %s, which is not now", c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
		case selfSigned(c):
			if !next.Has(identity.HashKey(c)) {
				next.Trusted = append(next.Trusted, c)
			}
		default:
			next.Above = append(next.Above, c)
		}
	}
	if len(next.Trusted) > MaxTrusted {
		return b, fmt.Errorf("%d authorities would be trusted, %d at most can be: drop one first", len(next.Trusted), MaxTrusted)
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range next.Trusted {
		opts.Roots.AddCert(c)
	}
	for _, c := range next.Above {
		opts.Intermediates.AddCert(c)
	}
	if _, err := own.Verify(opts); err != nil {
		return b, fmt.Errorf("the chain of %q leads to no root: append it, the root last: %w", own.Subject.CommonName, err)
	}
	if vouched != nil {
		next.Above = append(next.Above, vouched)
	}
	if 1+len(next.Above) > identity.MaxChain {
		return b, fmt.Errorf("a leaf would come with %d certificates above it, %d at most are allowed", len(next.Above), identity.MaxChain-1)
	}
	return next, nil
}

// Drop returns the bundle that no longer trusts the authority with this key.
func (b Bundle) Drop(key identity.KeyHash) (Bundle, error) {
	switch {
	case !b.Has(key):
		return b, fmt.Errorf("no trusted authority has the key %s; see \"netport-server ca status\"", key)
	case len(b.Trusted) == 1:
		return b, errors.New("it is the only authority that is trusted; make another first (netport-server ca roll)")
	}
	next := b
	next.Version++
	next.Trusted = slices.DeleteFunc(slices.Clone(b.Trusted), func(c *x509.Certificate) bool { return identity.HashKey(c) == key })
	// What it vouched for needs nobody to vouch for any more.
	next.Above = nil
	for _, c := range b.Above {
		if !signedBy(c, b.Trusted, key) {
			next.Above = append(next.Above, c)
		}
	}
	if b.Issuer != nil {
		opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: b.Issuer.NotBefore}
		for _, c := range next.Trusted {
			opts.Roots.AddCert(c)
		}
		for _, c := range next.Above {
			opts.Intermediates.AddCert(c)
		}
		if _, err := b.Issuer.Verify(opts); err != nil {
			return b, errors.New("the authority that issues rests on it; let another issue first (netport-server ca roll)")
		}
	}
	return next, nil
}

func signedBy(c *x509.Certificate, trusted []*x509.Certificate, key identity.KeyHash) bool {
	return slices.ContainsFunc(trusted, func(t *x509.Certificate) bool {
		return identity.HashKey(t) == key && c.CheckSignatureFrom(t) == nil
	})
}

// Trust returns the bundle that trusts these authorities too.
func (b Bundle) Trust(list []*x509.Certificate, now time.Time) (Bundle, error) {
	next := b
	next.Version++
	next.Trusted = slices.Clone(b.Trusted)
	for _, c := range list {
		switch {
		case !c.IsCA:
			return b, fmt.Errorf("%q is no CA", c.Subject.CommonName)
		case now.After(c.NotAfter):
			return b, fmt.Errorf("the CA %q ended on %s", c.Subject.CommonName, c.NotAfter.UTC().Format(time.DateOnly))
		case b.Has(identity.HashKey(c)):
			return b, fmt.Errorf("the CA %q is trusted already", c.Subject.CommonName)
		}
		next.Trusted = append(next.Trusted, c)
	}
	if len(next.Trusted) > MaxTrusted {
		return b, fmt.Errorf("%d authorities would be trusted, %d at most can be: drop one first", len(next.Trusted), MaxTrusted)
	}
	return next, nil
}

// stored is a bundle as it is kept; certificates in DER.
type stored struct {
	Version uint64           `json:"version"`
	Trusted [][]byte         `json:"trusted"`
	Issuing identity.KeyHash `json:"issuing"`
	Issuer  []byte           `json:"issuer,omitempty"`
	Above   [][]byte         `json:"above,omitempty"`
	KeyFile string           `json:"key_file,omitempty"`
}

// Encode returns the bundle as ParseBundle reads it.
func (b Bundle) Encode() ([]byte, error) {
	s := stored{Version: b.Version, Trusted: raw(b.Trusted), Issuing: b.Issuing, Above: raw(b.Above), KeyFile: b.KeyFile}
	if b.Issuer != nil {
		s.Issuer = b.Issuer.Raw
	}
	return json.Marshal(s)
}

// ParseBundle reads what Encode wrote.
func ParseBundle(text []byte) (Bundle, error) {
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return Bundle{}, fmt.Errorf("read state: the authorities: %w", err)
	}
	trusted, err1 := parse(s.Trusted)
	above, err2 := parse(s.Above)
	b := Bundle{Version: s.Version, Trusted: trusted, Issuing: s.Issuing, Above: above, KeyFile: s.KeyFile}
	var err3 error
	if s.Issuer != nil {
		b.Issuer, err3 = x509.ParseCertificate(s.Issuer)
	}
	if err := errors.Join(err1, err2, err3); err != nil || len(trusted) == 0 {
		return Bundle{}, fmt.Errorf("read state: the authorities are broken: %w", err)
	}
	return b, nil
}

func raw(list []*x509.Certificate) [][]byte {
	var out [][]byte
	for _, c := range list {
		out = append(out, bytes.Clone(c.Raw))
	}
	return out
}

func parse(list [][]byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, der := range list {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}
