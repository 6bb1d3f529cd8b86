package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"
)

// Fingerprint is the SHA-256 of a certificate: how an authority is named to who
// does not have its certificate yet.
type Fingerprint [32]byte

// FingerprintOf returns the fingerprint of a certificate.
func FingerprintOf(cert *x509.Certificate) Fingerprint { return sha256.Sum256(cert.Raw) }

// String returns all 64 hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Root returns the trusted authority that stands above the certificate that is
// held now; nil if none does.
func (c *Credentials) Root() *x509.Certificate {
	h := c.current.Load()
	last := h.certificate.Leaf
	if n := len(h.certificate.Certificate); n > 1 {
		var err error
		if last, err = x509.ParseCertificate(h.certificate.Certificate[n-1]); err != nil {
			return nil
		}
	}
	for _, ca := range h.authorities {
		if last.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// EnrolTLS returns the server's configuration for ProtocolEnrol. Its chain ends
// with its root, so that who joins finds the authority that it was told of. The
// other side may present a certificate: one of ours, which may have expired
// (check judges how long ago, by Peer.NotAfter), and that was not revoked.
func (c *Credentials) EnrolTLS(check Check) *tls.Config {
	cfg := c.config(ProtocolEnrol, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 && cs.NegotiatedProtocol == ProtocolEnrol {
			return nil
		}
		at := c.now()
		if len(cs.PeerCertificates) > 0 && at.After(cs.PeerCertificates[0].NotAfter) {
			at = cs.PeerCertificates[0].NotAfter
		}
		return c.verify(cs, ProtocolEnrol, x509.ExtKeyUsageClientAuth, at, check)
	})
	cfg.ClientAuth = tls.RequestClientCert
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert := c.Certificate()
		if root := c.Root(); root != nil {
			cert.Certificate = append(cert.Certificate[:len(cert.Certificate):len(cert.Certificate)], root.Raw)
		}
		return &cert, nil
	}
	return cfg
}

// Joining is the handshake of who has no certificate yet, with a server under an
// authority that he knows by its fingerprint alone. Domain and Root are those of
// the server, once the handshake is over.
type Joining struct {
	Early
	Domain string
	Root   *x509.Certificate
}

// JoinTLS returns the configuration of a Joining, which belongs to one connection.
func JoinTLS(authority Fingerprint, now func() time.Time) (*tls.Config, *Joining) {
	j := &Joining{}
	j.Early.judge = j.judge
	return dialling(&tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ProtocolEnrol},
		SessionTicketsDisabled: true,
		Time:                   now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := checkState(cs, ProtocolEnrol); err != nil {
				return err
			}
			for _, cert := range cs.PeerCertificates[1:] {
				if FingerprintOf(cert) == authority && cert.IsCA {
					j.Root = cert
				}
			}
			if j.Root == nil {
				return fmt.Errorf("the server is not under the authority %s that it should be under: it is another server, or its authority was replaced", authority)
			}
			return j.verify(cs, now(), nil)
		},
	}), j
}

func (j *Joining) judge(cs tls.ConnectionState, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(j.Root)
	p, _, err := verifyChain(cs.PeerCertificates, roots, at, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if p.ID.Role != Server {
		return fmt.Errorf("peer is %s, expected a %s", p.ID, Server)
	}
	j.Domain = p.ID.Domain
	return nil
}

// CheckIssued reports why a chain (leaf first) that was issued to id for a key is of
// no use to its holder: it is of somebody else or for another key, or peers that
// trust roots would not take it at the time at, on the sides of a connection that its
// role plays.
func CheckIssued(chain, roots []*x509.Certificate, id ID, key KeyHash, at time.Time) error {
	if n := len(chain); n == 0 || n > MaxChain {
		return fmt.Errorf("%d certificates, 1 to %d are allowed", n, MaxChain)
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	for _, usage := range Usages(id.Role) {
		p, _, err := verifyChain(chain, pool, at, usage)
		if err != nil {
			return err
		}
		if p.ID != id {
			return fmt.Errorf("it is of %s, not of %s", p.ID, id)
		}
		if p.Key != key {
			return fmt.Errorf("it is for the key %s, not for %s", p.Key, key)
		}
	}
	return nil
}

// Usages returns what the certificate of a role is good for: which sides of a connection
// it may play.
func Usages(role Role) []x509.ExtKeyUsage {
	switch role {
	case Server:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case Admin:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// ParseChain reads certificates as messages hold them, DER each.
func ParseChain(ders [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// HashPublic returns the KeyHash of a public key; the zero KeyHash if it is of no
// kind that certificates have.
func HashPublic(public crypto.PublicKey) KeyHash {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return KeyHash{}
	}
	return sha256.Sum256(der)
}
