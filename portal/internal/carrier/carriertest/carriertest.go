// Package carriertest has what the tests of carriers and tunnels share: two
// portals that trust each other, and connections between them.
package carriertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
)

// protocol is the application protocol of both configurations: QUIC asks for one.
const protocol = "netport-tunnel/1"

// TLS returns the configurations of two portals that trust each other and
// nobody else. Their certificates name them "client" and "server".
func TLS(t testing.TB) (client, server *tls.Config) {
	t.Helper()
	pool := x509.NewCertPool()
	client = &tls.Config{Certificates: []tls.Certificate{leaf(t, pool, "client")}, RootCAs: pool, ServerName: "server", NextProtos: []string{protocol}}
	server = &tls.Config{Certificates: []tls.Certificate{leaf(t, pool, "server")}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{protocol}}
	return client, server
}

// leaf makes a certificate that signs itself and puts it into the pool.
func leaf(t testing.TB, pool *x509.CertPool, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: c}
}

// Loopback returns the two ends of a TCP connection over loopback.
func Loopback() (a, b *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	s, err := l.Accept()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), s.(*net.TCPConn), nil
}

// TCP is Loopback for tests. The caller closes both ends.
func TCP(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	a, b, err := Loopback()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}
