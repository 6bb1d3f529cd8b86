package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// The application protocols (ALPN), one for each protocol, so that a
// connection of one can never be played as another.
const (
	ProtocolControl = "netport-control/1" // portal or relay to server
	ProtocolTunnel  = "netport-tunnel/1"  // portal to portal
	ProtocolRelay   = "netport-relay/1"   // portal to a relay's shared port
)

// MaxChain is the most certificates a peer may present, leaf included.
const MaxChain = 4

// Peer is the proven other side of a connection.
type Peer struct {
	ID       ID
	Key      KeyHash
	NotAfter time.Time
}

// Check decides about a peer whose certificate is valid, after its identity
// was read: a last rule of the caller (a name expected, a revocation). Its
// error ends the handshake.
type Check func(Peer) error

// Expect returns a Check that admits one role and, where name is not empty,
// one name.
func Expect(role Role, name string) Check {
	return func(p Peer) error {
		if p.ID.Role != role {
			return fmt.Errorf("peer is %s, expected a %s", p.ID, role)
		}
		if name != "" && p.ID.Name != name {
			return fmt.Errorf("peer is %s, expected the name %q", p.ID, name)
		}
		return nil
	}
}

// ClientTLS returns the configuration of the side that dials.
// protocol is one of the Protocol constants.
func (c *Credentials) ClientTLS(protocol string, check Check) *tls.Config {
	cfg := c.config(protocol, check, x509.ExtKeyUsageServerAuth)
	// The peer is known by its URI, which crypto/tls does not look at; so its
	// own check is off and VerifyConnection does the whole of it.
	cfg.InsecureSkipVerify = true
	cfg.ServerName = "netport.invalid" // the same for all: the name in clear tells nothing
	return cfg
}

// ServerTLS returns the configuration of the side that is dialled.
func (c *Credentials) ServerTLS(protocol string, check Check) *tls.Config {
	cfg := c.config(protocol, check, x509.ExtKeyUsageClientAuth)
	cfg.ClientAuth = tls.RequireAnyClientCert
	return cfg
}

func (c *Credentials) config(protocol string, check Check, usage x509.ExtKeyUsage) *tls.Config {
	cert := c.Certificate
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
		Time:                   c.now,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			p, err := c.verify(cs, protocol, usage)
			if err != nil {
				return err
			}
			return check(p)
		},
	}
}

// PeerOf returns the proven peer of a finished handshake that was made with
// ClientTLS or ServerTLS.
func PeerOf(cs tls.ConnectionState) (Peer, error) {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return Peer{}, errors.New("connection without a proven peer")
	}
	leaf := cs.PeerCertificates[0]
	id, err := FromCertificate(leaf)
	return Peer{ID: id, Key: HashKey(leaf), NotAfter: leaf.NotAfter}, err
}

func (c *Credentials) verify(cs tls.ConnectionState, protocol string, usage x509.ExtKeyUsage) (Peer, error) {
	if cs.NegotiatedProtocol != protocol {
		return Peer{}, fmt.Errorf("peer speaks protocol %q, expected %q", shorten(cs.NegotiatedProtocol), protocol)
	}
	if n := len(cs.PeerCertificates); n == 0 || n > MaxChain {
		return Peer{}, fmt.Errorf("peer sent %d certificates, 1 to %d are allowed", n, MaxChain)
	}
	p, err := verifyChain(cs.PeerCertificates, c.Roots, c.now(), usage)
	if err != nil {
		return Peer{}, err
	}
	if p.ID.Domain != c.ID.Domain {
		return Peer{}, fmt.Errorf("peer is %s, not of our domain %s", p.ID, c.ID.Domain)
	}
	return p, nil
}

// verifyChain verifies chain (leaf first) against roots at the time now.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (Peer, error) {
	leaf := chain[0]
	for _, cert := range chain {
		if err := checkKey(cert.PublicKey); err != nil {
			return Peer{}, err
		}
	}
	if leaf.IsCA {
		return Peer{}, errors.New("peer's certificate is a CA's, not a leaf")
	}
	// x509.Verify takes a leaf without extended key usage as fit for all.
	if len(leaf.ExtKeyUsage) == 0 {
		return Peer{}, errors.New("peer's certificate names no extended key usage")
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == x509.ExtKeyUsageAny {
			return Peer{}, errors.New("peer's certificate is for any extended key usage")
		}
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(opts); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			what := "peer's certificate"
			if invalid.Cert != nil && !invalid.Cert.Equal(leaf) {
				what = fmt.Sprintf("CA certificate %q above the peer's", shorten(invalid.Cert.Subject.String()))
				leaf = invalid.Cert
			}
			return Peer{}, fmt.Errorf("%s is valid from %s to %s, and the clock here says %s: renew it or set the clock", what,
				leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		return Peer{}, fmt.Errorf("verify the peer's certificate: %w", err)
	}
	id, err := FromCertificate(leaf)
	if err != nil {
		return Peer{}, err
	}
	return Peer{ID: id, Key: HashKey(leaf), NotAfter: leaf.NotAfter}, nil
}

// checkKey admits ECDSA on P-256 and P-384, Ed25519, and RSA of 2,048 to 4,096
// bits: strong enough, and cheap enough that no stranger can burn our time.
func checkKey(pub any) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("certificate has an ECDSA key on %s: use P-256 or P-384", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 {
			return fmt.Errorf("certificate has an RSA key of %d bits: 2048 to 4096 are allowed", n)
		}
		return nil
	}
	return fmt.Errorf("certificate has a key of type %T: use ECDSA P-256, Ed25519 or RSA", pub)
}
