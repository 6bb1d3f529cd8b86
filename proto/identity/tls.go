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
	ProtocolEnrol   = "netport-enrol/1"   // who has no valid certificate yet, or no more, to server
	ProtocolTunnel  = "netport-tunnel/1"  // portal to portal
	ProtocolRelay   = "netport-relay/1"   // portal to a relay's shared port
	ProtocolAdmin   = "netport-admin/1"   // an operator's command to server
)

// MaxChain is the most certificates a peer may present, leaf included.
const MaxChain = 4

// Peer is the proven other side of a connection.
type Peer struct {
	ID       ID
	Key      KeyHash
	NotAfter time.Time
	Serial   string // of its certificate: the bytes of the number, big endian
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
			return fmt.Errorf("peer is %s (key %s), expected a %s", p.ID, p.Key, role)
		}
		if name != "" && p.ID.Name != name {
			return fmt.Errorf("peer is %s (key %s), expected the name %q", p.ID, p.Key, name)
		}
		return nil
	}
}

// ClientTLS returns the configuration of the side that dials.
// protocol is one of the Protocol constants.
func (c *Credentials) ClientTLS(protocol string, check Check) *tls.Config {
	cfg := c.config(protocol, func(cs tls.ConnectionState) error {
		return c.verify(cs, protocol, x509.ExtKeyUsageServerAuth, c.now(), check)
	})
	return dialling(cfg)
}

// dialling makes cfg one for the side that dials.
func dialling(cfg *tls.Config) *tls.Config {
	// The peer is known by its URI, which crypto/tls does not look at; so its
	// own check is off and VerifyConnection does the whole of it.
	cfg.InsecureSkipVerify = true
	cfg.ServerName = "netport.invalid" // the same for all: the name in clear tells nothing
	return cfg
}

// ServerTLS returns the configuration of the side that is dialled.
func (c *Credentials) ServerTLS(protocol string, check Check) *tls.Config {
	cfg := c.config(protocol, func(cs tls.ConnectionState) error {
		return c.verify(cs, protocol, x509.ExtKeyUsageClientAuth, c.now(), check)
	})
	cfg.ClientAuth = tls.RequireAnyClientCert
	return cfg
}

func (c *Credentials) config(protocol string, verify func(tls.ConnectionState) error) *tls.Config {
	current := func() (*tls.Certificate, error) {
		cert := c.Certificate()
		return &cert, nil
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
		Time:                   c.now,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return current() },
		VerifyConnection:       verify,
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
	return Peer{ID: id, Key: HashKey(leaf), NotAfter: leaf.NotAfter, Serial: string(leaf.SerialNumber.Bytes())}, err
}

// verify judges the peer of a handshake at the time at.
func (c *Credentials) verify(cs tls.ConnectionState, protocol string, usage x509.ExtKeyUsage, at time.Time, check Check) error {
	if err := checkState(cs, protocol); err != nil {
		return err
	}
	p, chains, err := verifyChain(cs.PeerCertificates, c.current.Load().roots, at, usage)
	if err != nil {
		return err
	}
	if p.ID.Domain != c.ID.Domain {
		return fmt.Errorf("peer is %s, not of our domain %s", p.ID, c.ID.Domain)
	}
	if err := c.revoked.Check(chains); err != nil {
		return fmt.Errorf("peer is %s: %w", p.ID, err)
	}
	return check(p)
}

// checkState judges what stands before any certificate is looked at.
func checkState(cs tls.ConnectionState, protocol string) error {
	if cs.NegotiatedProtocol != protocol {
		return fmt.Errorf("peer speaks protocol %q, expected %q", shorten(cs.NegotiatedProtocol), protocol)
	}
	if n := len(cs.PeerCertificates); n == 0 || n > MaxChain {
		return fmt.Errorf("peer sent %d certificates, 1 to %d are allowed", n, MaxChain)
	}
	return nil
}

// verifyChain verifies presented (leaf first) against roots at the time now, and
// returns all chains that are right.
func verifyChain(presented []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (Peer, [][]*x509.Certificate, error) {
	leaf := presented[0]
	for _, cert := range presented {
		if err := checkKey(cert.PublicKey); err != nil {
			return Peer{}, nil, err
		}
	}
	if leaf.IsCA {
		return Peer{}, nil, errors.New("peer's certificate is a CA's, not a leaf")
	}
	// x509.Verify takes a leaf without extended key usage as fit for all.
	if len(leaf.ExtKeyUsage) == 0 {
		return Peer{}, nil, errors.New("peer's certificate names no extended key usage")
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == x509.ExtKeyUsageAny {
			return Peer{}, nil, errors.New("peer's certificate is for any extended key usage")
		}
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, cert := range presented[1:] {
		opts.Intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return Peer{}, nil, outOfTime(leaf, invalid.Cert, now)
		}
		return Peer{}, nil, fmt.Errorf("verify the peer's certificate: %w", err)
	}
	id, err := FromCertificate(leaf)
	if err != nil {
		return Peer{}, nil, err
	}
	return Peer{ID: id, Key: HashKey(leaf), NotAfter: leaf.NotAfter, Serial: string(leaf.SerialNumber.Bytes())}, chains, nil
}

// outOfTime is the error about a chain in which a certificate, the leaf if it is
// nil, is not valid now.
func outOfTime(leaf, cert *x509.Certificate, now time.Time) error {
	what := "peer's certificate"
	if cert != nil && !cert.Equal(leaf) {
		what = fmt.Sprintf("CA certificate %q above the peer's", shorten(cert.Subject.String()))
		leaf = cert
	}
	off := "before its begin"
	by := leaf.NotBefore.Sub(now)
	if by <= 0 {
		off, by = "after its end", now.Sub(leaf.NotAfter)
	}
	return fmt.Errorf("%s is valid from %s to %s, and the clock here says %s, %s %s: renew it or set the clock", what,
		leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), by.Round(time.Second), off)
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
