package faults

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"path/filepath"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// impostor is a portal or relay with a valid certificate that is played by the test: a control connection to the
// server on which it says whatever it likes.
type impostor struct {
	w    *world
	name string
	conn *tls.Conn
}

// identity issues one to an impostor.
func (w *world) identity(role identity.Role, name string, args ...string) *identity.Credentials {
	w.t.Helper()
	dir := filepath.Join(w.Server.Dir(), "issued-"+name)
	w.Server.Run(append([]string{"issue", string(role), name, "--out", dir}, args...)...)
	return daemon.Credentials(w.t, dir, role)
}

// join connects an impostor from a host to the server and greets it.
func (w *world) join(host *topo.Host, credentials *identity.Credentials) *impostor {
	w.t.Helper()
	i, err := w.tryJoin(host, credentials)
	if err != nil {
		w.t.Fatalf("%s: %v", credentials.ID.Name, err)
	}
	return i
}

func (w *world) tryJoin(host *topo.Host, credentials *identity.Credentials) (*impostor, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), await.Patience)
	defer cancel()
	raw, err := host.DialContext(ctx, "tcp", w.serverAddr())
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { raw.Close() })
	await.Limit(w.t, raw)
	i := &impostor{
		w: w, name: credentials.ID.Name,
		conn: tls.Client(raw, credentials.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))),
	}
	if _, err := i.conn.Write(wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion, Software: "impostor"})); err != nil {
		return nil, err
	}
	kind, _, err := i.read()
	if err == nil && kind != wire.TypeWelcome {
		err = fmt.Errorf("the server answered the greeting with a message of type %d", kind)
	}
	return i, err
}

func (i *impostor) send(m wire.Message) {
	i.w.t.Helper()
	if _, err := i.conn.Write(wire.AppendMessage(nil, m)); err != nil {
		i.w.t.Fatalf("%s: %v", i.name, err)
	}
}

// read returns the server's next message.
func (i *impostor) read() (wire.Type, []byte, error) {
	var header [wire.ControlHeaderLen]byte
	if _, err := io.ReadFull(i.conn, header[:]); err != nil {
		return 0, nil, err
	}
	kind, n, err := wire.ParseControlHeader(header[:])
	if err != nil {
		return 0, nil, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(i.conn, body)
	return kind, body, err
}

// next skips messages up to one of the type.
func (i *impostor) next(want wire.Type) []byte {
	i.w.t.Helper()
	for {
		kind, body, err := i.read()
		if err != nil {
			i.w.t.Fatalf("%s: waiting for a message of type %d: %v", i.name, want, err)
		}
		if kind == want {
			return body
		}
	}
}

// session waits for a session.
func (i *impostor) session() wire.Session {
	i.w.t.Helper()
	s, err := wire.ParseSession(i.next(wire.TypeSession))
	if err != nil {
		i.w.t.Fatal(err)
	}
	return s
}

// granted waits for a grant.
func (i *impostor) granted() grant.Grant {
	i.w.t.Helper()
	put, err := wire.ParsePutGrant(i.next(wire.TypePutGrant))
	if err != nil {
		i.w.t.Fatal(err)
	}
	g, err := grant.Parse(put.Grant)
	if err != nil {
		i.w.t.Fatal(err)
	}
	return g
}

// meet makes two impostors, on hosts of the internet, that have a session with UDP legs at the relay.
func (w *world) meet() (mallory, eve *topo.Host, sessions [2]wire.Session) {
	w.t.Helper()
	mallory, eve = w.lab.Public("mallory"), w.lab.Public("eve")
	w.t.Log("the impostors are", mallory.Addr(), eve.Addr())
	ids := [2]*identity.Credentials{w.identity(identity.Portal, "mallory"), w.identity(identity.Portal, "eve")}
	w.Apply("[[forward]]\nname = \"pact\"\nfrom = \"mallory udp://127.0.0.1:9\"\nto = \"eve udp://127.0.0.1:9\"\n")
	first, second := w.join(mallory, ids[0]), w.join(eve, ids[1])
	g := first.granted()
	second.granted()
	first.send(wire.OpenSession{Request: 1, Peer: "eve", Grant: g.ID(), Transports: wire.TransportSplice | wire.TransportUDP})
	sessions = [2]wire.Session{first.session(), second.session()}
	return mallory, eve, sessions
}
