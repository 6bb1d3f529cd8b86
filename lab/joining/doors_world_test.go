package joining

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// fortress is a world with a relay and the portal plant, whose every door strangers try
// with certificates that openssl has made, under the domain's own CA and for keys that are
// enrolled: nothing else is wrong with them. The portal mallory and the relay liar are
// played by the test.
type fortress struct {
	*world
	*identitytest.Forger
	shared string                                        // the relay's shared port
	entry  string                                        // where plant listens, for mallory
	keys   map[identity.Role]crypto.Signer               // of mallory, liar, the server, and of an admin
	names  map[identity.Role]string                      // and their names
	conn   *control.Conn[wire.ToPortal, wire.FromPortal] // mallory's, to the server
	id     wire.GrantID                                  // of mallory's grant to plant
	told   chan wire.Session                             // to mallory
	asked  uint32                                        // sessions that mallory has asked for
}

func newFortress(t *testing.T) *fortress {
	t.Helper()
	w := newWorld(t)
	f := &fortress{
		world: w, Forger: identitytest.NewForger(t), shared: w.free(), entry: w.free(),
		keys:  make(map[identity.Role]crypto.Signer),
		names: map[identity.Role]string{identity.Portal: "mallory", identity.Relay: "liar", identity.Server: "server", identity.Admin: "root"},
		told:  make(chan wire.Session, 16),
	}
	f.Copy("ca.pem", filepath.Join(w.folder("server"), "ca.pem"))
	f.Copy("ca.key", filepath.Join(w.folder("server"), "ca.key"))
	w.ask("issue", "portal", "mallory", "--out", w.folder("mallory"))
	w.ask("issue", "relay", "liar", "--address", "127.0.0.1", "--out", w.folder("liar"))
	f.Key("admin")
	for role, file := range map[identity.Role]string{
		identity.Portal: filepath.Join(w.folder("mallory"), "key.pem"), identity.Relay: filepath.Join(w.folder("liar"), "key.pem"),
		identity.Server: filepath.Join(w.folder("server"), "key.pem"), identity.Admin: f.File("admin.key"),
	} {
		key, err := identity.LoadKey(file)
		if err != nil {
			t.Fatal(err)
		}
		f.keys[role] = key
		if role != identity.Admin {
			f.Copy(string(role)+".key", file)
		}
	}

	w.issueRelay("relay-1", netip.MustParseAddrPort(f.shared).Port())
	w.start("relay", "relay-1")
	w.ask("issue", "portal", "plant", "--out", w.folder("plant"))
	w.start("portal", "plant")
	policy := filepath.Join(w.dir, "policy.toml")
	text := fmt.Sprintf("domain = %q\n[[forward]]\nname = \"in\"\nfrom = \"mallory tcp://127.0.0.1:1\"\nto = \"plant tcp://127.0.0.1:1\"\n"+
		"[[forward]]\nname = \"out\"\nfrom = \"plant tcp://%s\"\nto = \"mallory tcp://127.0.0.1:1\"\n", domain, f.entry)
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.ask("policy", "apply", policy)
	f.connect()
	return f
}

// issueRelay makes the folder of a relay on loopback, with or without a shared TCP port.
func (w *world) issueRelay(name string, shared uint16) {
	w.t.Helper()
	w.ask("issue", "relay", name, "--address", w.ip, "--out", w.folder(name))
	if err := daemon.EditConfig(w.config(name), daemon.Set("allow_loopback", true), daemon.Set("addresses", []string{w.ip}),
		daemon.Set("mode", "userspace"), daemon.Set("shared_tcp_port", shared), daemon.Set("shared_udp_port", 0)); err != nil {
		w.t.Fatal(err)
	}
}

// enrolAdmin has the admin's key enrolled, as if it had been made where he works.
func (f *fortress) enrolAdmin() {
	f.t.Helper()
	key, err := os.ReadFile(f.File("admin.key"))
	if err == nil {
		err = os.MkdirAll(f.folder("root"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(f.folder("root"), "key.pem"), key, 0o600)
	}
	if err == nil {
		err = f.join("server", "root", f.invite("admin", "root"))
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// connect connects mallory to the server and waits for its grant.
func (f *fortress) connect() {
	f.t.Helper()
	file := func(name string) string { return filepath.Join(f.folder("mallory"), name) }
	own, err := identity.Load(file("cert.pem"), file("key.pem"), file("ca.pem"), identity.Portal, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	dialer := control.Dialer[wire.ToPortal, wire.FromPortal]{Credentials: own, Parse: wire.ParseToPortal, Log: slog.New(slog.DiscardHandler)}
	if f.conn, _, err = dialer.Dial(f.t.Context(), f.address); err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	granted, ready, online := make(chan wire.GrantID, 2), make(chan bool, 16), make(chan bool, 16)
	var running sync.WaitGroup
	running.Go(func() {
		f.conn.Run(ctx, func(m wire.ToPortal) error {
			switch m := m.(type) {
			case wire.PutGrant:
				g, err := grant.Parse(m.Grant)
				if err == nil && g.Forward == "in" {
					err = tell(ctx, granted, g.ID())
				}
				return err
			case wire.RelayState:
				return tell(ctx, ready, m.Ready)
			case wire.PeerState:
				return tell(ctx, online, m.Online)
			case wire.Session:
				return tell(ctx, f.told, m)
			}
			return nil
		})
	})
	f.t.Cleanup(func() {
		stop()
		await.Return(f.t, "mallory's connection", running.Wait)
	})
	f.id = await.Receive(f.t, "mallory's grant", granted)
	for !await.Receive(f.t, "word of a relay for mallory", ready) {
	}
	for !await.Receive(f.t, "word of plant for mallory", online) {
	}
}

// tell hands something over to who waits for it, unless nobody does any more.
func tell[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forge makes a certificate of a role's name with its key, whose extensions are as they are given.
func (f *fortress) forge(role identity.Role, extensions string) tls.Certificate {
	f.t.Helper()
	f.Sign("forged", string(role), "ca", extensions)
	return f.Load(f.keys[role], "forged")
}

// good is a certificate with which nothing is wrong but, at most doors, its role.
func (f *fortress) good(role identity.Role) tls.Certificate {
	f.t.Helper()
	return f.forge(role, fmt.Sprintf("subjectAltName=URI:spiffe://%s/%s/%s\n", domain, role, f.names[role])+identitytest.BothUsages)
}

// presenting is a stranger's side of a handshake: he takes whoever answers.
func presenting(protocol string, cert tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: "netport.invalid", NextProtos: []string{protocol},
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		ClientAuth:           tls.RequireAnyClientCert,
	}
}

// admitted ends a handshake and reports whether the other side took the certificate: it
// then waits for what is said to it, and is told that nothing comes; else it sends an alert.
func (f *fortress) admitted(c *tls.Conn) bool {
	f.t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(await.Patience))
	err := c.Handshake()
	if err == nil {
		c.CloseWrite() // it may have hung up already: what it has said can be read all the same
		_, err = c.Read(make([]byte, 1))
	}
	var remote *net.OpError
	switch {
	case errors.As(err, &remote) && remote.Op == "remote error":
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.t.Fatal("neither admitted nor refused")
	}
	return true
}

// answers reports whether who was dialled answers a message: who was refused gets none.
func (f *fortress) answers(c *tls.Conn, m wire.Message) bool {
	f.t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(await.Patience))
	if _, err := c.Write(wire.AppendMessage(nil, m)); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, wire.ControlHeaderLen))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		f.t.Fatal("neither admitted nor refused")
	}
	return err == nil
}

func (f *fortress) dial(address, protocol string, cert tls.Certificate) *tls.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	return tls.Client(c, presenting(protocol, cert))
}

// impostors listens once for each certificate, has the daemon of a folder dial all of them for
// its server, and returns which it has greeted.
func (f *fortress) impostors(role, name string, certs []tls.Certificate) []bool {
	f.t.Helper()
	greeted := make([]bool, len(certs))
	var servers []string
	var listeners []net.Listener
	var tried, serving sync.WaitGroup
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
		await.Return(f.t, "the impostors", serving.Wait)
	}()
	for i, cert := range certs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.t.Fatal(err)
		}
		listeners = append(listeners, l)
		servers = append(servers, l.Addr().String())
		tried.Add(1)
		serving.Go(func() {
			// The daemon may come again before it has tried all.
			for first := true; ; first = false {
				raw, err := l.Accept()
				if err != nil {
					return
				}
				is := greets(raw, cert)
				if first {
					greeted[i] = is
					tried.Done()
				}
			}
		})
	}
	if err := daemon.EditConfig(f.config(name), daemon.Set("servers", servers)); err != nil {
		f.t.Fatal(err)
	}
	p := f.start(role, name)
	defer p.stop()
	await.Return(f.t, fmt.Sprintf("%s's try of all %d servers", name, len(certs)), tried.Wait)
	return greeted
}

// greets reports whether who has dialled an impostor greets him.
func greets(raw net.Conn, cert tls.Certificate) bool {
	defer raw.Close()
	c := tls.Server(raw, presenting(identity.ProtocolControl, cert))
	c.SetDeadline(time.Now().Add(await.Patience / 2))
	_, err := io.ReadFull(c, make([]byte, wire.ControlHeaderLen))
	return err == nil
}

// session waits for one that mallory has asked for, or that plant has because a client comes
// to it.
func (f *fortress) session(asks bool) wire.Session {
	f.t.Helper()
	if asks {
		f.asked++
		f.conn.Send(wire.OpenSession{Request: f.asked, Peer: "plant", Grant: f.id, Transports: wire.TransportSplice})
	}
	for late := time.After(await.Patience); ; {
		cut := make(chan error, 1)
		if !asks {
			c, err := net.Dial("tcp", f.entry)
			if err == nil {
				defer c.Close()
			}
			go func() { // a client that came while the last tunnel ended is cut with it
				if err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				cut <- err
			}()
		}
		select {
		case s := <-f.told:
			return s
		case <-cut:
			await.Passing(f.t, 20*time.Millisecond)
		case <-late:
			f.t.Fatal("mallory is told of no session")
		}
	}
}

// tunnel has mallory and plant meet at the relay, and mallory present a certificate there:
// as the TLS client if mallory has asked for the session.
func (f *fortress) tunnel(asks bool, cert tls.Certificate) bool {
	f.t.Helper()
	s := f.session(asks)
	defer f.conn.Send(wire.SessionDone{Session: s.ID, Reason: wire.ReasonIdle})
	if (s.Leg == 0) != asks {
		f.t.Fatalf("mallory has leg %d", s.Leg)
	}
	raw, err := net.Dial("tcp", netip.AddrPortFrom(s.Relay.Addresses[0], s.Relay.TCP).String())
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := raw.Write(leg.NewPreface(leg.ID{Session: s.ID, Leg: s.Leg}).AppendTo(nil, s.Secret)); err != nil {
		f.t.Fatal(err)
	}
	cfg := presenting(identity.ProtocolTunnel, cert)
	if asks {
		return f.admitted(tls.Client(raw, cfg))
	}
	return f.admitted(tls.Server(raw, cfg))
}
