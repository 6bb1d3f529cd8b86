package overquic

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

// rig is a listener, and who may dial it.
type rig struct {
	*testing.T
	ca       *identitytest.Authority
	listener *Listener
	address  string

	mu      sync.Mutex // guards the following
	full    bool       // nobody is let in
	inside  int        // who was let in and has not left
	entered int        // so far
	failed  []error
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, ca: identitytest.New(t)}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server := r.ca.Credentials(identity.Server, "s")
	cfg := server.ServerTLS(identity.ProtocolControl, identity.Expect(identity.Portal, ""))
	r.listener, err = Listen(socket, cfg, Options{Enter: r.enter, Failed: r.fails})
	if err != nil {
		t.Fatal(err)
	}
	r.address = r.listener.Addr().String()
	t.Cleanup(func() { r.listener.Close() })
	return r
}

func (r *rig) enter(net.Addr) (func(), bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return nil, false
	}
	r.inside++
	r.entered++
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.inside--
	}), true
}

func (r *rig) fails(_ net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, err)
}

// wait waits until ready, which is called with the lock.
func (r *rig) wait(what string, ready func() bool) {
	r.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		is := ready()
		r.mu.Unlock()
		if is {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			r.Fatalf("waited for 10 s: %s", what)
		}
	}
}

// dial dials as a portal.
func (r *rig) dial(d Dialer, address string) (*Conn, error) {
	return r.dialAs(r.ca.Credentials(identity.Portal, "p"), d, address)
}

func (r *rig) dialAs(own *identity.Credentials, d Dialer, address string) (*Conn, error) {
	conn, _, err := Dial(r.Context(), d, address, func() (*tls.Config, string) {
		return own.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, "")), ""
	})
	return conn, err
}

// pair returns both ends of a connection on which the portal has said hello.
func (r *rig) pair() (portal, server *Conn, caller *Caller) {
	r.Helper()
	portal, err := r.dial(Dialer{}, r.address)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { portal.Close() })
	if _, err := portal.Write([]byte("hello")); err != nil {
		r.Fatal(err)
	}
	caller, err = r.listener.Accept(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { caller.Close() })
	server, err = caller.Take(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	if b := make([]byte, 5); r.read(server, b) != "hello" {
		r.Fatalf("the server read %q", b)
	}
	return portal, server, caller
}

func (r *rig) read(c *Conn, b []byte) string {
	r.Helper()
	if _, err := io.ReadFull(c, b); err != nil {
		r.Fatal(err)
	}
	return string(b)
}

func TestBothSidesAreProvenAndWhatIsWrittenArrives(t *testing.T) {
	r := newRig(t)
	portal, server, caller := r.pair()
	for _, end := range []struct {
		conn *Conn
		peer string
	}{{portal, "spiffe://example.org/server/s"}, {server, "spiffe://example.org/portal/p"}} {
		state := end.conn.ConnectionState()
		peer, err := identity.PeerOf(state)
		if err != nil || peer.ID.String() != end.peer || state.NegotiatedProtocol != identity.ProtocolControl {
			t.Errorf("the peer is %v by %q, want %s: %v", peer.ID, state.NegotiatedProtocol, end.peer, err)
		}
	}
	if a := portal.RemoteAddr(); a.String() != r.address || a.Network() != "udp" {
		t.Errorf("it goes to %s/%s", a.Network(), a)
	}
	if a := portal.LocalAddr().(*net.UDPAddr); a.IP.IsUnspecified() || a.String() != server.RemoteAddr().String() {
		t.Errorf("it comes from %v, and for the server from %v", a, server.RemoteAddr())
	}
	caller.Proven()
	r.wait("its place is free", func() bool { return r.inside == 0 })
	// More than a window, in both directions at once.
	blob := make([]byte, 3*maxWindow)
	rand.Read(blob)
	var writing sync.WaitGroup
	for _, c := range []*Conn{portal, server} {
		writing.Go(func() {
			if _, err := c.Write(blob); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range []*Conn{portal, server} {
		if err := c.Await(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(blob))
		if r.read(c, got); !bytes.Equal(got, blob) {
			t.Error("what arrived is not what was sent")
		}
	}
	writing.Wait()
}

// The last word arrives though the connection is closed right behind it, and both ends are gone
// as soon as they both are closed.
func TestLastWordArrives(t *testing.T) {
	for _, words := range []string{"goodbye", strings.Repeat("goodbye ", 4000)} { // the latter about a window
		t.Run(strconv.Itoa(len(words)), func(t *testing.T) { lastWord(t, []byte(words)) })
	}
}

func lastWord(t *testing.T, words []byte) {
	r := newRig(t)
	portal, server, caller := r.pair()
	if _, err := portal.Write(words); err != nil {
		t.Fatal(err)
	}
	portal.Close()
	began := time.Now()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, words) {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
	caller.Close()
	portal.Wait()
	r.listener.Close()
	if took := time.Since(began); took > lingerTime/2 {
		t.Errorf("gone after %v", took)
	}
	if n, err := portal.Write([]byte("more")); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("wrote %d bytes after the end: %v", n, err)
	}
	if _, err := portal.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}
	if err := portal.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a deadline after the end: %v", err)
	}
}

// A peer that says nothing any more holds up neither Close nor, for long, what waits for the end.
func TestCloseEndsWhatWaits(t *testing.T) {
	r := newRig(t)
	portal, _, _ := r.pair()
	ended := make(chan error, 2)
	go func() { ended <- portal.Await() }()
	var wrote atomic.Int64
	go func() {
		for { // the server reads none of it
			n, err := portal.Write(make([]byte, 1<<10))
			if wrote.Add(int64(n)); err != nil {
				ended <- err
				return
			}
		}
	}()
	waits := func(held *sync.Mutex) bool {
		if held.TryLock() {
			held.Unlock()
			return false
		}
		return true
	}
	r.wait("both wait", func() bool { return wrote.Load() > window-1<<10 && waits(&portal.reading) && waits(&portal.writing) })
	began := time.Now()
	portal.Close()
	if took := time.Since(began); took > lingerTime/2 {
		t.Errorf("Close took %v", took)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("it waited until %v", err)
		}
	}
	portal.Wait()
	if took := time.Since(began); took > 2*lingerTime {
		t.Errorf("gone after %v", took)
	}
}

func TestDeadlinesHold(t *testing.T) {
	r := newRig(t)
	portal, _, _ := r.pair()
	portal.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := portal.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read until %v", err)
	}
	portal.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := portal.Write(make([]byte, 4*maxWindow)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote until %v", err)
	}
}

// Who is refused for his certificate hears it as he does over TCP, and so does the listener's owner.
func TestStrangersAreRefused(t *testing.T) {
	r := newRig(t)
	relay := r.ca.Credentials(identity.Relay, "r")
	conn, err := r.dialAs(relay, Dialer{}, r.address)
	if err == nil { // the server judges after the portal thinks that it is done
		conn.Write([]byte("hello"))
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" || op.Err != tls.AlertError(42) {
		t.Errorf("a relay hears %#v", err)
	}
	var got string
	r.wait("it was told", func() bool {
		if len(r.failed) > 0 {
			got = r.failed[0].Error()
		}
		return got != "" && r.inside == 0
	})
	if !strings.Contains(got, "expected a portal") {
		t.Errorf("the listener's owner was told %s", got)
	}
	// The other way round: a server of somebody else.
	foreign := identitytest.New(t).Credentials(identity.Portal, "p")
	if _, err := r.dialAs(foreign, Dialer{}, r.address); err == nil || !strings.Contains(err.Error(), "certificate") || errors.Is(err, net.ErrClosed) {
		t.Errorf("a portal of another domain: %v", err)
	}
}

// Where there is no room a caller is told so at once.
func TestNoRoom(t *testing.T) {
	r := newRig(t)
	r.mu.Lock()
	r.full = true
	r.mu.Unlock()
	if _, err := r.dial(Dialer{}, r.address); err == nil || !strings.Contains(err.Error(), "no more connections") {
		t.Errorf("got %v", err)
	}
}

// Nobody listens: who dials hears it at once.
func TestNobodyListens(t *testing.T) {
	r := newRig(t)
	r.listener.Close()
	began := time.Now()
	if _, err := r.dial(Dialer{}, r.address); !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "127.0.0.1") || time.Since(began) > time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// Addresses are judged, and of several the first that answers is taken; a name that cannot be looked up leads
// to what is known of it.
func TestAddresses(t *testing.T) {
	r := newRig(t)
	_, port, _ := net.SplitHostPort(r.address)
	broken := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no resolver") }}
	if _, err := r.dial(Dialer{Resolver: broken}, "server.example:"+port); err == nil {
		t.Error("a name that nobody knows was reached")
	}
	known := Dialer{Resolver: broken, Known: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}}
	conn, err := r.dial(known, "server.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	known.Permit = func(a netip.Addr) error {
		if a == netip.MustParseAddr("127.0.0.1") {
			return errors.New("not there")
		}
		return nil
	}
	if _, err := r.dial(known, "server.example:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("127.0.0.2 alone: %v", err)
	}
	if _, err := r.dial(Dialer{Permit: known.Permit}, r.address); err == nil || err.Error() != "not there" {
		t.Errorf("an address that is not permitted: %v", err)
	}
}

// What ICMP says of a connection that stands is passed over: a server that is started anew, or a route that is gone for
// a second, is no reason to give it up.
func TestErrorsOfARunningConnectionArePassedOver(t *testing.T) {
	r := newRig(t)
	portal, _, _ := r.pair()
	r.listener.socket.Close()
	for range 3 {
		if _, err := portal.Write([]byte("are you there?")); err != nil {
			t.Fatal(err)
		}
		portal.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := portal.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read until %v", err)
		}
	}
}
