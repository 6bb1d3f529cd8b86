package splice

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/netport/netport/proto/identity"

	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

// tlsRig is a rig whose shared port takes TLS from portals.
func tlsRig(t *testing.T) (*rig, *identitytest.Authority) {
	ca := identitytest.New(t)
	relay := ca.Credentials(identity.Relay, "relay-1")
	return newRig(t, relay.ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, ""))), ca
}

// clientTLS returns a connection to the shared port on which a handshake may begin.
func (g *rig) clientTLS(c *identity.Credentials) *tls.Conn {
	g.t.Helper()
	return tls.Client(g.dial(g.shared, nil), c.ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, "relay-1")))
}

func (g *rig) dialTLS(c *identity.Credentials, first []byte) *tls.Conn {
	g.t.Helper()
	t := g.clientTLS(c)
	if _, err := t.Write(first); err != nil {
		g.t.Fatal(err)
	}
	return t
}

func TestLegsInsideTLSAreJoinedWithAnyOther(t *testing.T) {
	g, ca := tlsRig(t)
	m := g.session()
	portal := ca.Credentials(identity.Portal, "a")
	forth, back := noise(3<<20), noise(2<<20+5)
	for connection, peer := range []func() net.Conn{
		func() net.Conn { return g.dial(m.address, m.preface(1, 0)) },
		func() net.Conn { return g.dialTLS(portal, m.preface(1, 1)) },
	} {
		a, b := g.dialTLS(portal, m.preface(0, uint16(connection))), peer()
		go func() {
			a.Write(forth)
			a.CloseWrite()
		}()
		g.wantRead("forth", b, forth)
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: read %d bytes, %v; want EOF", n, err)
		}
		go func() {
			b.Write(back)
			b.(interface{ CloseWrite() error }).CloseWrite()
		}()
		g.wantRead("back", a, back)
		if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: read %d bytes, %v; want EOF", n, err)
		}
	}
	g.await("the pairs are over", func() bool { return g.Pairs() == 0 })
	if got, want := g.Traffic(m.ID), (lease.Traffic{2 * uint64(len(forth)), 2 * uint64(len(back))}); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestTLSCutShortBecomesAReset(t *testing.T) {
	g, ca := tlsRig(t)
	m := g.session()
	a := g.dialTLS(ca.Credentials(identity.Portal, "a"), m.preface(0, 0))
	b := g.dial(m.address, m.preface(1, 0))
	a.Write([]byte("x"))
	g.wantRead("first byte", b, []byte("x"))
	a.NetConn().(*net.TCPConn).CloseWrite() // a clean end of TCP, but not of TLS
	wantReset(t, "the other leg", b)
}

func TestResetReachesALegInsideTLS(t *testing.T) {
	g, ca := tlsRig(t)
	m := g.session()
	a := g.dialTLS(ca.Credentials(identity.Portal, "a"), m.preface(0, 0))
	b := g.dial(m.address, m.preface(1, 0))
	a.Write([]byte("x"))
	g.wantRead("first byte", b, []byte("x"))
	b.SetLinger(0)
	b.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("leg inside TLS ends with %v, want a reset", err)
	}
}

func TestTLSIsForPortalsOfThisProtocol(t *testing.T) {
	g, ca := tlsRig(t)
	stranger := identitytest.New(t).Credentials(identity.Portal, "a")
	wrong := ca.Credentials(identity.Portal, "a").ClientTLS(identity.ProtocolTunnel, identity.Expect(identity.Relay, ""))
	foreign := stranger.ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, ""))
	foreign.VerifyConnection = nil // it takes any relay, and is refused itself
	old := ca.Credentials(identity.Portal, "a").ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, ""))
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	server := ca.Credentials(identity.Server, "server").ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, ""))
	for what, cfg := range map[string]*tls.Config{"another protocol": wrong, "another CA": foreign, "TLS 1.2": old, "another role": server} {
		before := g.cfg.Drops.Count(drop.TLS)
		c := tls.Client(g.dial(g.shared, nil), cfg)
		if err := c.Handshake(); err == nil {
			_, err = c.Read(make([]byte, 1)) // TLS 1.3: the relay's judgement comes after
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s: %v, want an alert", what, err)
			}
		}
		g.await(what+" is counted", func() bool { return g.cfg.Drops.Count(drop.TLS) == before+1 })
	}
	before := g.cfg.Drops.Count(drop.WrongMAC)
	m := g.session()
	bad := m.preface(0, 0)
	bad[63] ^= 1
	c := g.dialTLS(ca.Credentials(identity.Portal, "a"), bad)
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("wrong MAC inside TLS: read %d bytes, %v", n, err)
	}
	g.await("the wrong MAC is counted", func() bool { return g.cfg.Drops.Count(drop.WrongMAC) == before+1 })
	g.wantClosed("TLS at a session's own port", g.dial(m.address, append([]byte{0x16, 3, 1, 0, 200, 1}, make([]byte, 200)...)), drop.Malformed, 0)
}
