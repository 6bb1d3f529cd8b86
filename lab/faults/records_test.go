package faults

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/record/recordtest"
	"github.com/netport/netport/proto/wire"
)

// T19: a portal with a valid certificate that sends its messages byte by byte, each in a TLS record of its own, is cut off
// or slowed down, and takes no more than its share of the server.
func TestTinyRecordsCostTheServerLittle(t *testing.T) {
	records := 100_000
	if *full {
		records *= 10
	}
	w := newWorld(t)
	w.allow(w.echoes()...)
	f := w.joinToFlood(t, w.lab.Public("mallory"), w.identity(identity.Portal, "mallory"))
	traffic := w.startTraffic()
	f.run(records, func(b []byte, _ int) []byte { return f.AppendData(b, f.next()) })
	w.wantJoined(w.lab.Public("honest"), w.identity(identity.Portal, "honest"))
	traffic.end()
}

// T19: so is one that sends KeyUpdates with a byte now and then, since crypto/tls gives up when nothing else comes: to the
// server, to the relay at its shared port, and to a portal in their tunnel.
func TestKeyUpdatesCostLittle(t *testing.T) {
	const shared = 8443
	w := newWorld(t, daemon.Set("shared_tcp_port", shared))
	host, eve := w.lab.Public("mallory"), w.lab.Public("eve")
	mallory, accomplice := w.identity(identity.Portal, "mallory"), w.identity(identity.Portal, "eve")
	w.Apply(w.policy(w.echoes()...) +
		"[[forward]]\nname = \"pact\"\nfrom = \"mallory stdio:\"\nto = \"eve tcp://127.0.0.1:9\"\n" +
		"[[forward]]\nname = \"prey\"\nfrom = \"mallory stdio:\"\nto = \"factory tcp://127.0.0.1:9\"\n")
	w.laptop.WaitUp("tcp")
	w.laptop.WaitUp("udp")
	traffic := w.startTraffic()

	t.Run("server", func(t *testing.T) {
		f := w.joinToFlood(t, host, mallory)
		f.keyUpdates()
		w.wantJoined(w.lab.Public("honest"), w.identity(identity.Portal, "honest"))
	})
	t.Run("relay", func(t *testing.T) {
		second := w.join(eve, accomplice)
		s := w.join(host, mallory).open("eve")
		proveLeg(t, eve.Dial("tcp", w.relayAddr(s.Relay.TCP)), second.session())
		config := mallory.ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, ""))
		f := newRecordFlood(t, w.relay.Daemon, host.Dial("tcp", w.relayAddr(shared)), config)
		f.begin(make([]byte, 1<<10), preface(s))
		f.keyUpdates()
	})
	t.Run("portal", func(t *testing.T) {
		s := w.join(host, mallory).open("factory")
		conn := host.Dial("tcp", w.relayAddr(s.Relay.TCP))
		proveLeg(t, conn, s)
		config := mallory.ClientTLS(identity.ProtocolTunnel, identity.Expect(identity.Portal, "factory"))
		f := newRecordFlood(t, w.factory.Daemon, conn, config)
		const unknown, length = 0x7f, 1 << 10 // frames of this type are skipped
		frame := make([]byte, wire.FrameHeaderLen+length)
		wire.FrameHeader{Type: unknown, Length: length}.PutTo(frame)
		f.begin(frame, wire.AppendFrame(nil, 0, wire.TunnelHello{Version: wire.TunnelVersion, Session: s.ID}))
		f.keyUpdates()
	})
	traffic.end()
}

// open makes a session with another portal, which the policy grants.
func (i *impostor) open(peer string) wire.Session {
	i.w.t.Helper()
	g := i.granted()
	for g.Exit.Name != peer {
		g = i.granted()
	}
	i.send(wire.OpenSession{Request: 1, Peer: peer, Grant: g.ID(), Transports: wire.TransportSplice})
	return i.session()
}

// preface is what proves an impostor's leg to the relay.
func preface(s wire.Session) []byte {
	return leg.NewPreface(leg.ID{Session: s.ID, Leg: s.Leg}).AppendTo(nil, s.Secret)
}

func proveLeg(t *testing.T, conn net.Conn, s wire.Session) {
	t.Helper()
	if _, err := conn.Write(preface(s)); err != nil {
		t.Fatal(err)
	}
}

// wantJoined wants the server to take an honest portal at once.
func (w *world) wantJoined(host *topo.Host, credentials *identity.Credentials) {
	w.t.Helper()
	begun := time.Now()
	w.join(host, credentials)
	if took := time.Since(begun); took > time.Second {
		w.t.Errorf("an honest portal took %v", took)
	}
}

// recordFlood is a peer that sends a daemon TLS records as fast as they are taken.
type recordFlood struct {
	*recordtest.Sealer
	t       *testing.T
	on      *daemon.Daemon
	conn    *tls.Conn
	keys    *bytes.Buffer // its key log
	content []byte        // goes round and round, byte by byte
	at      int
}

// newRecordFlood connects one to a daemon.
func newRecordFlood(t *testing.T, on *daemon.Daemon, raw net.Conn, config *tls.Config) *recordFlood {
	t.Helper()
	await.Limit(t, raw)
	f := &recordFlood{t: t, on: on, keys: new(bytes.Buffer)}
	config.KeyLogWriter = f.keys
	f.conn = tls.Client(raw, config)
	if err := f.conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return f
}

// begin sends what comes first, and takes over from crypto/tls.
func (f *recordFlood) begin(content, first []byte) {
	f.t.Helper()
	if _, err := f.conn.Write(first); err != nil {
		f.t.Fatal(err)
	}
	f.content, f.Sealer = content, recordtest.NewSealer(f.t, f.conn, f.keys.Bytes(), 1)
}

// joinToFlood greets the server, to flood it.
func (w *world) joinToFlood(t *testing.T, host *topo.Host, credentials *identity.Credentials) *recordFlood {
	t.Helper()
	config := credentials.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))
	f := newRecordFlood(t, w.Server.Daemon, host.Dial("tcp", w.serverAddr()), config)
	message := binary.BigEndian.AppendUint16(nil, 0x7fff) // a type that is skipped
	message = binary.BigEndian.AppendUint32(message, wire.MaxControl)
	message = append(message, make([]byte, wire.MaxControl)...) // as long as can be: few messages, and many records
	f.begin(message, wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion, Software: "impostor"}))
	return f
}

// next is the next byte of the content.
func (f *recordFlood) next() byte {
	f.at++
	return f.content[(f.at-1)%len(f.content)]
}

// keyUpdates sends KeyUpdates, with so few bytes between them as crypto/tls bears.
func (f *recordFlood) keyUpdates() {
	f.t.Helper()
	const count, inRow = 100_000, 16
	f.run(count, func(b []byte, i int) []byte {
		if i%(inRow+1) == inRow {
			return f.AppendData(b, f.next())
		}
		return f.AppendKeyUpdate(b)
	})
}

// run sends so many records, of which appendNext appends the i-th. The daemon must cut them off, or spend little on them.
func (f *recordFlood) run(count int, appendNext func(b []byte, i int) []byte) {
	f.t.Helper()
	const atOnce, patience, most = 100, 5 * time.Second, time.Second / 4
	var blocks [][]byte // made beforehand, so that the test's own work slows nothing down
	for i := 0; i < count; {
		var b []byte
		for range atOnce {
			b = appendNext(b, i)
			i++
		}
		blocks = append(blocks, b)
	}
	raw, cut := f.conn.NetConn(), make(chan struct{})
	go func() { // what the daemon says is not listened to, but must not fill the socket
		defer close(cut)
		io.Copy(io.Discard, raw)
	}()
	before, start := cpuTime(f.t, f.on), time.Now()
	for _, b := range blocks {
		if _, err := raw.Write(b); err != nil {
			break
		}
	}
	select {
	case <-cut:
	case <-time.After(patience):
	}
	used, took := cpuTime(f.t, f.on)-before, time.Since(start)
	f.t.Logf("%d records cost %s %v in %v", count, f.on.Name(), used, took)
	select {
	case <-cut:
		if used > most {
			f.t.Errorf("%s used %v before it cut the peer off, want %v at most", f.on.Name(), used, most)
		}
	default:
		if used > took/20 {
			f.t.Errorf("%s used %v of %v for one peer, and did not cut it off", f.on.Name(), used, took)
		}
	}
}
