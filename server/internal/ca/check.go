package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
)

// Check reports why a chain that another CA made is not what was ordered: another
// name, another key, a role it is not good for, a life that is longer, or an authority
// that is not trusted. It returns the chain as it is to be sent: without the root.
func Check(chain []*x509.Certificate, id identity.ID, public crypto.PublicKey, life time.Duration, trusted []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > identity.MaxChain {
		return nil, fmt.Errorf("%d certificates came, 1 to %d are expected", len(chain), identity.MaxChain)
	}
	leaf := chain[0]
	if leaf.IsCA {
		return nil, errors.New("the first certificate is a CA's")
	}
	if got, err := identity.FromCertificate(leaf); err != nil {
		return nil, err
	} else if got != id {
		return nil, fmt.Errorf("the certificate is for %s, %s was asked for", got, id)
	}
	if !samePublic(leaf.PublicKey, public) {
		return nil, errors.New("the certificate has another key than the request")
	}
	want := identity.Usages(id.Role)
	for _, u := range want {
		if !slices.Contains(leaf.ExtKeyUsage, u) {
			return nil, fmt.Errorf("the certificate of a %s must be good for %s", id.Role, usageNames(want))
		}
	}
	if slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil, errors.New("the certificate is good for any extended key usage, which no portal takes")
	}
	if life > 0 && leaf.NotAfter.Sub(now) > life+life/10+time.Minute {
		return nil, fmt.Errorf("the certificate lasts until %s, longer than certificate_life (%s) says", leaf.NotAfter.UTC().Format(time.RFC3339), conffile.FormatDuration(life))
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: want}
	for _, c := range trusted {
		opts.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return nil, fmt.Errorf("the certificate does not lead to an authority that this domain trusts: %w", err)
	}
	last := chain[len(chain)-1]
	if len(chain) > 1 && selfSigned(last) {
		chain = chain[:len(chain)-1]
	}
	return chain, nil
}

func usageNames(list []x509.ExtKeyUsage) string {
	switch {
	case len(list) > 1:
		return "client and server authentication"
	case list[0] == x509.ExtKeyUsageClientAuth:
		return "client authentication"
	}
	return "server authentication"
}

func selfSigned(c *x509.Certificate) bool { return c.CheckSignatureFrom(c) == nil }
