package meeting

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/eyeballs"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// The races run in bubbles: two portals that try two ways over a relay, each
// portal at the same distance from it, with a clock of their own.
//
//	client ---- hop ---- relay ---- hop ---- server
//
// Splice mode connects to the relay at once, whatever the other portal does;
// packet mode connects one portal and then the other when both have dialled.

// kind is how a way behaves.
type kind int

const (
	works   kind = iota
	silent       // nothing answers
	refused      // the dial fails at once
	stalls       // connects and carries nothing
	breaks       // connects and breaks
)

// relayed is a relay that can do both modes for one carrier.
type relayed struct {
	hop     time.Duration
	packet  kind
	splice  kind
	blocked map[string]kind // packet mode for one side
	late    time.Duration   // how much longer packet mode takes to connect
	slow    time.Duration   // how much longer splice mode does
	resort  bool            // splice mode is tried once more, under another number, and works then

	mu      sync.Mutex
	dialled map[string]int         // how often, by side and way
	taken   map[string]string      // way by side
	lost    map[string]string      // way by side
	half    net.Conn               // of splice mode, waits for the other portal
	syn     chan chan<- net.Conn   // of packet mode, takes the second's way to answer
	open    map[*watched]struct{}  // connections that no one has closed
	onTaken func(string, net.Conn) // nil: nothing more happens
}

func newRelayed(hop time.Duration) *relayed {
	return &relayed{
		hop: hop, dialled: make(map[string]int), taken: make(map[string]string), lost: make(map[string]string),
		open: make(map[*watched]struct{}),
	}
}

// watched is a connection of which it is known whether it was closed.
type watched struct {
	net.Conn
	r *relayed
}

func (w *watched) Close() error {
	w.r.mu.Lock()
	delete(w.r.open, w)
	w.r.mu.Unlock()
	return w.Conn.Close()
}

func (r *relayed) watch(c net.Conn) net.Conn {
	w := &watched{c, r}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[w] = struct{}{}
	return w
}

// raced is a way through a relayed.
type raced struct {
	r          *relayed
	side, name string
	number     uint16
	kind       kind
	dial       func(ctx context.Context, k kind) (net.Conn, error)
	conn       net.Conn
}

func (w *raced) String() string         { return w.name }
func (w *raced) Kind() wire.CarrierKind { return wire.CarrierTCP }
func (w *raced) Connection() uint16     { return w.number }
func (w *raced) Stuck()                 {}

func (w *raced) Dial(ctx context.Context) (net.Conn, error) {
	w.r.mu.Lock()
	w.r.dialled[w.side+" "+w.name]++
	w.r.mu.Unlock()
	switch w.kind {
	case silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case refused:
		if err := rest(ctx, 2*w.r.hop); err != nil {
			return nil, err
		}
		return nil, syscall.ECONNREFUSED
	}
	c, err := w.dial(ctx, w.kind)
	if err == nil {
		w.conn = w.r.watch(c)
		return w.conn, nil
	}
	return nil, err
}

func (w *raced) Taken() {
	w.r.mu.Lock()
	w.r.taken[w.side] = w.name
	w.r.mu.Unlock()
	if w.r.onTaken != nil {
		w.r.onTaken(w.side, w.conn)
	}
}

func (w *raced) Direct() bool { return false }

func (w *raced) Lost() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.lost[w.side] = w.name
}

// rest waits for d, no longer than ctx. It makes no timer that is due at once: where two goroutines of
// a bubble take one at the same time the race detector of Go 1.26 crashes, for they share its state.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hole is the end of a connection that carries nothing.
func hole() net.Conn {
	a, b := net.Pipe()
	go func() {
		io.Copy(io.Discard, b)
		b.Close()
	}()
	return a
}

// dialSplice connects to the relay, which joins what comes from both sides.
func (r *relayed) dialSplice(ctx context.Context, k kind) (net.Conn, error) {
	if err := rest(ctx, 2*r.hop+r.slow); err != nil {
		return nil, err
	}
	switch k {
	case stalls:
		return hole(), nil
	case breaks:
		a, b := net.Pipe()
		b.Close()
		return a, nil
	}
	mine, at := carriertest.Far(r.hop)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.half == nil {
		r.half = at
		return mine, nil
	}
	for _, d := range [][2]net.Conn{{at, r.half}, {r.half, at}} {
		go func() {
			io.Copy(d[0], d[1])
			d[0].Close()
			d[1].Close()
		}()
	}
	return mine, nil
}

// dialPacket connects when both have dialled: the first comer, then, when that
// has answered, the other.
func (r *relayed) dialPacket(ctx context.Context, k kind) (net.Conn, error) {
	if err := rest(ctx, r.hop+r.late); err != nil {
		return nil, err
	}
	r.mu.Lock()
	if syn := r.syn; syn != nil {
		r.mu.Unlock()
		var mine, other net.Conn
		if k == stalls {
			mine, other = hole(), hole()
		} else {
			mine, other = carriertest.Far(2 * r.hop)
		}
		select {
		case first := <-syn:
			first <- other
		default: // the first has given up: its RST
			mine.Close()
			other.Close()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if err := rest(ctx, 3*r.hop); err != nil {
			mine.Close()
			return nil, err
		}
		return mine, nil
	}
	r.syn = make(chan chan<- net.Conn, 1)
	answer := make(chan net.Conn, 1)
	r.syn <- answer
	r.mu.Unlock()
	select {
	case c := <-answer:
		if err := rest(ctx, r.hop); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		select {
		case <-r.syn:
		case c := <-answer:
			c.Close()
		}
		return nil, ctx.Err()
	}
}

// legs are the Leg of one side: for every carrier both ways, beginning with
// the way first.
type legs struct {
	r           *relayed
	side, first string
	apart       time.Duration
}

func (l legs) Ways(n uint16) ([]path.Way, []time.Duration) {
	r := l.r
	list := []path.Way{
		&raced{r: r, side: l.side, name: "packet", number: n, kind: max(r.packet, r.blocked[l.side]), dial: r.dialPacket},
		&raced{r: r, side: l.side, name: "splice", number: n, kind: r.splice, dial: r.dialSplice},
	}
	if l.first == "splice" {
		slices.Reverse(list)
	}
	at := []time.Duration{0, l.apart}
	if r.resort {
		list = append(list, &raced{r: r, side: l.side, name: "resort", number: leg.Meeting, dial: r.dialSplice})
		at = append(at, l.apart+time.Second)
	}
	return list, at
}

func (l legs) Again() ([]path.Way, []time.Duration) { return l.Ways(0) }

func (l legs) Of(n uint16, kind wire.CarrierKind) ([]path.Way, []time.Duration) {
	if kind != wire.CarrierTCP {
		return nil, nil
	}
	return l.Ways(n)
}

// portals are the two identities of all races.
type portals struct{ client, server *tls.Config }

// newPortals makes the identities; a bubble's clock would find them not yet
// valid.
func newPortals(t *testing.T) (p portals) {
	now := time.Now()
	p.client, p.server = carriertest.TLS(t)
	for _, c := range []*tls.Config{p.client, p.server} {
		c.Time = func() time.Time { return now }
	}
	return p
}

// side is one portal: it makes one carrier and serves it.
type side struct {
	*Meeting
	met   Met
	up    chan struct{} // closed when met is there
	over  chan struct{} // closed when err is: why there is no carrier any more
	err   error
	heard chan struct{} // gets a value for a HELLO that Run has read
}

// Hello implements carrier.Handler, and so do the next two.
func (s *side) Hello(wire.TunnelHello) error {
	s.heard <- struct{}{}
	return nil
}
func (s *side) Frame(wire.FrameHeader, []byte) error { return nil }
func (s *side) Silent(bool)                          {}

// serve makes a carrier and serves it until it dies.
func (s *side) serve(ctx context.Context, make func(context.Context) (Met, error)) {
	defer close(s.over)
	if s.met, s.err = make(ctx); s.err != nil {
		return
	}
	close(s.up)
	if s.err = s.met.Conn.Run(ctx, s); s.err != nil && ctx.Err() == nil {
		s.met.Way.Lost()
	}
}

// pair is the two portals of a session.
type pair struct {
	client, server *side
	stop           func()
}

// newSide returns a portal that has these tunnels with its peer.
func newSide(info wire.Session, leg Leg, conf *tls.Config, tunnels Tunnels) *side {
	return &side{
		Meeting: New(Config{Session: info, Leg: leg, TLS: conf, Tunnels: tunnels, Log: slog.New(slog.DiscardHandler)}),
		up:      make(chan struct{}), over: make(chan struct{}), heard: make(chan struct{}, 1),
	}
}

// sessions returns what the server tells the two.
func sessions() (client, server wire.Session) {
	id := wire.NewSessionID()
	return wire.Session{ID: id, Peer: "server"}, wire.Session{ID: id, Leg: 1, Peer: "client"}
}

// start runs a client and a server, the one the later the other by skew, and
// returns them. They end with the bubble.
func (r *relayed) start(who portals, client, server string, apart map[string]time.Duration, skew time.Duration) *pair {
	c, s := sessions()
	p := &pair{
		client: newSide(c, legs{r, "client", client, apart[client]}, who.client, &tunnels{}),
		server: newSide(s, legs{r, "server", server, apart[server]}, who.server, &tunnels{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		rest(ctx, -skew)
		p.client.serve(ctx, p.client.First)
	})
	running.Go(func() {
		rest(ctx, skew)
		p.server.serve(ctx, p.server.First)
	})
	p.stop = func() {
		cancel()
		running.Wait()
		if r.half != nil {
			r.half.Close()
		}
		time.Sleep(time.Second) // what is under way arrives
	}
	return p
}

// staggers are those of package path: who has found packet mode to fail tries
// both at once.
var staggers = map[string]time.Duration{"packet": eyeballs.Stagger, "splice": 0}

// up waits until both are and checks that they share one way, which it returns,
// that works, and that nothing is left of the other.
func (r *relayed) up(t *testing.T, p *pair, within time.Duration) string {
	began := time.Now()
	for _, s := range []*side{p.client, p.server} {
		select {
		case <-s.up:
		case <-s.over:
			t.Errorf("no carrier came up: %v", s.err)
			return ""
		}
	}
	if took := time.Since(began); took > within {
		t.Errorf("up after %v, want %v", took, within)
	}
	for _, s := range []*side{p.client, p.server} {
		if _, err := s.met.Conn.Ping(context.Background()); err != nil {
			t.Errorf("ping: %v", err)
		}
	}
	if c, s := p.client.met, p.server.met; c.Tunnel.ID != s.Tunnel.ID || !c.New || !s.New {
		t.Errorf("the client has tunnel %v, the server %v", c.Tunnel.ID, s.Tunnel.ID)
	}
	time.Sleep(joinTime) // nothing that is still under way breaks it
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken["client"] != r.taken["server"] {
		t.Errorf("taken: %v", r.taken)
	}
	if len(r.lost) > 0 {
		t.Errorf("lost: %v", r.lost)
	}
	for way, n := range r.dialled {
		if n > 1 {
			t.Errorf("%s was dialled %d times", way, n)
		}
	}
	if len(r.open) != 2 {
		t.Errorf("%d connections are open, want one at each side", len(r.open))
	}
	return r.taken["client"]
}

// Whatever the two remember, whatever works, and whoever begins first: they
// come up, on the same way.
func TestPortalsTakeOneWayWhateverWorks(t *testing.T) {
	who := newPortals(t)
	type network struct {
		name           string
		packet, splice kind
		late           time.Duration
		want           string // "": either
	}
	networks := []network{
		{name: "both work"},
		{name: "packet is silent", packet: silent, want: "splice"},
		{name: "packet is refused", packet: refused, want: "splice"},
		{name: "packet stalls", packet: stalls, want: "splice"},
		{name: "packet is late", late: 300 * time.Millisecond},
		{name: "splice is silent", splice: silent, want: "packet"},
		{name: "splice is refused", splice: refused, want: "packet"},
		{name: "splice stalls", splice: stalls, want: "packet"},
	}
	for _, n := range networks {
		for _, client := range []string{"packet", "splice"} {
			for _, server := range []string{"packet", "splice"} {
				for _, at := range []struct{ hop, skew time.Duration }{
					{time.Millisecond, 0}, {25 * time.Millisecond, 0}, {150 * time.Millisecond, 0},
					{5 * time.Millisecond, 400 * time.Millisecond}, {5 * time.Millisecond, -400 * time.Millisecond},
				} {
					synctest.Test(t, func(t *testing.T) {
						r := newRelayed(at.hop)
						r.packet, r.splice, r.late = n.packet, n.splice, n.late
						p := r.start(who, client, server, staggers, at.skew)
						// The way that is tried second, its connection, the handshake.
						got := r.up(t, p, at.skew.Abs()+eyeballs.Stagger+n.late+14*at.hop)
						want := n.want
						if want == "" && client == "packet" && server == "packet" && n.late == 0 && at.hop < 100*time.Millisecond {
							want = "packet" // it had a head start
						}
						if want != "" && got != want {
							t.Errorf("took %q, want %q", got, want)
						}
						if t.Failed() {
							t.Logf("%s; the client begins with %s, the server with %s; %v from the relay, the server %v later", n.name, client, server, at.hop, at.skew)
						}
						p.stop()
					})
				}
			}
		}
	}
}

// To wait for HELLO costs no round trip, and neither does the choice: the server
// is up when the client's last words of the handshake are there.
func TestRaceCostsNoRoundTrip(t *testing.T) {
	who := newPortals(t)
	const hop = 50 * time.Millisecond
	for _, test := range []struct {
		name           string
		packet, splice kind
		skew           time.Duration
		client, server int // up after so many hops
	}{
		// Two to the relay and back, four for each round trip between portals.
		{"splice mode", refused, works, 0, 6, 8},
		{"packet mode, the client comes first", works, refused, time.Microsecond, 6, 8},
		{"packet mode, the server comes first", works, refused, -time.Microsecond, 8, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRelayed(hop)
			r.packet, r.splice = test.packet, test.splice
			began := time.Now()
			p := r.start(who, "splice", "splice", staggers, test.skew)
			<-p.client.up
			if took := time.Since(began) - test.skew.Abs(); took != time.Duration(test.client)*hop {
				t.Errorf("%s: the client is up after %v, want %d hops of %v", test.name, took, test.client, hop)
			}
			<-p.server.up
			if took := time.Since(began) - test.skew.Abs(); took != time.Duration(test.server)*hop {
				t.Errorf("%s: the server is up after %v, want %d hops of %v", test.name, took, test.server, hop)
			}
			p.stop()
		})
	}
}

// The handshakes of both ways end within a moment of each other, in any order:
// the client's choice is the server's.
func TestWaysThatComeUpTogetherAreTakenAlike(t *testing.T) {
	who := newPortals(t)
	const hop = 10 * time.Millisecond
	seen := make(map[string]int)
	for ahead := -3 * hop; ahead <= 3*hop; ahead += hop / 4 {
		for _, skew := range []time.Duration{0, hop / 2, -hop / 2} {
			synctest.Test(t, func(t *testing.T) {
				r := newRelayed(hop)
				r.late, r.slow = max(0, -ahead), max(0, ahead)
				p := r.start(who, "splice", "splice", staggers, skew)
				seen[r.up(t, p, skew.Abs()+ahead.Abs()+10*hop)]++
				if t.Failed() {
					t.Logf("packet mode %v ahead, the server %v later", ahead, skew)
				}
				p.stop()
			})
		}
	}
	if seen["packet"] < 10 || seen["splice"] < 10 {
		t.Errorf("one way was always ahead: %v", seen)
	}
}

// A network in which one portal cannot use packet mode, and the other can.
func TestPortalThatIsRefusedOneWayMeetsTheOtherOnTheNext(t *testing.T) {
	who := newPortals(t)
	for _, blocked := range []string{"client", "server"} {
		for _, how := range []kind{silent, refused} {
			for _, first := range []string{"packet", "splice"} {
				synctest.Test(t, func(t *testing.T) {
					r := newRelayed(5 * time.Millisecond)
					r.blocked = map[string]kind{blocked: how}
					p := r.start(who, first, first, staggers, 0)
					if got := r.up(t, p, eyeballs.Stagger+100*time.Millisecond); got != "splice" {
						t.Errorf("the %s is blocked, %s first: took %q", blocked, first, got)
					}
					p.stop()
				})
			}
		}
	}
}

func TestNoWayWorksAndBothSaySo(t *testing.T) {
	who := newPortals(t)
	for _, kinds := range [][2]kind{{silent, silent}, {silent, refused}, {refused, stalls}, {stalls, stalls}, {refused, refused}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRelayed(5 * time.Millisecond)
			r.packet, r.splice = kinds[0], kinds[1]
			p := r.start(who, "packet", "splice", staggers, 0)
			began := time.Now()
			for _, s := range []*side{p.client, p.server} {
				<-s.over
				err := s.err
				if err == nil || !strings.Contains(err.Error(), "packet: ") || !strings.Contains(err.Error(), "splice: ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("ways %v: %v", kinds, err)
				}
			}
			if took := time.Since(began); took > joinTime {
				t.Errorf("ways %v: given up after %v", kinds, took)
			}
			if len(r.open)+len(r.taken) > 0 {
				t.Errorf("ways %v: %d connections are open, taken %v", kinds, len(r.open), r.taken)
			}
			p.stop()
		})
	}
}

// A box on the way lets connections open and breaks, or swallows, what they carry:
// the resort carries within a moment of that, under its own number, wherever the
// box is.
func TestResortCarriesWhereWhatOpensBreaks(t *testing.T) {
	who := newPortals(t)
	for _, test := range []struct {
		kind   kind
		within time.Duration
	}{{breaks, 400 * time.Millisecond}, {stalls, 1400 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRelayed(5 * time.Millisecond)
			r.packet, r.splice, r.resort = silent, test.kind, true
			p := r.start(who, "packet", "packet", staggers, 0)
			if got := r.up(t, p, test.within); got != "resort" {
				t.Errorf("took %q", got)
			}
			for _, s := range []*side{p.client, p.server} {
				if n := s.met.Conn.Connection(); n != leg.Meeting {
					t.Errorf("carrier %d", n)
				}
			}
			p.stop()
		})
	}
}

// A relay that joins a portal with another than the peer: the portal that finds
// out logs it, and of what else may end a handshake nothing.
func TestStrangerIsLogged(t *testing.T) {
	who := newPortals(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRelayed(5 * time.Millisecond)
		info, other := sessions()
		var said [2]bytes.Buffer // of client and server
		client := newSide(info, legs{r, "client", "packet", 0}, who.client, &tunnels{})
		conf := who.server.Clone()
		conf.VerifyConnection = func(tls.ConnectionState) error { return errors.New("another name") }
		server := newSide(other, legs{r, "server", "packet", 0}, conf, &tunnels{})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i, s := range []*side{client, server} {
			s.Log = slog.New(slog.NewTextHandler(&said[i], nil))
			running.Go(func() { s.serve(ctx, s.First) })
		}
		running.Wait()
		cancel()
		if got := said[1].String(); !strings.Contains(got, "not the peer answers") || !strings.Contains(got, "another name") {
			t.Errorf("the server has met a stranger and says %q", got)
		}
		if got := said[0].String(); got != "" {
			t.Errorf("the client was refused by the server and says %q", got)
		}
		time.Sleep(time.Second) // what is under way arrives
	})
}

// What the client has taken breaks before its HELLO gets through: the carrier
// has failed on both sides, and the way is told so.
func TestWayThatBreaksAsItIsTakenFailsOnBothSides(t *testing.T) {
	who := newPortals(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRelayed(5 * time.Millisecond)
		r.onTaken = func(side string, c net.Conn) { c.Close() }
		p := r.start(who, "splice", "splice", staggers, 0)
		began := time.Now()
		<-p.client.over
		<-p.server.over
		if p.client.err == nil || p.server.err == nil {
			t.Errorf("the client's carrier ended with %v, the server's with %v", p.client.err, p.server.err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("over after %v", took)
		}
		if r.taken["server"] != "" || r.lost["client"] != r.taken["client"] || len(r.open) > 0 {
			t.Errorf("taken %v, lost %v, %d connections open", r.taken, r.lost, len(r.open))
		}
		p.stop()
	})
}

// A client that says HELLO on two connections gets one carrier.
func TestServerTakesOneOfTwoHellos(t *testing.T) {
	who := newPortals(t)
	synctest.Test(t, func(t *testing.T) {
		info, _ := sessions()
		info.Leg = 1
		var far []net.Conn
		var list fixed
		for range 2 {
			a, b := net.Pipe()
			far = append(far, a)
			list = append(list, &given{conn: b})
		}
		s := newSide(info, list, who.server, &tunnels{})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { s.serve(ctx, s.First) })
		var clients []*side
		for _, c := range far {
			conn, err := carrier.OverTCP(ctx, c, carrier.Config{Client: true, Session: info.ID, TLS: who.client})
			if err != nil {
				t.Fatal(err)
			}
			client := &side{met: Met{Conn: conn}, over: make(chan struct{}), heard: make(chan struct{}, 1)}
			clients = append(clients, client)
		}
		select {
		case <-s.up:
			t.Error("up before any HELLO")
		default:
		}
		for _, c := range clients {
			c.met.Conn.SendHello(wire.TunnelHello{})
			running.Go(func() {
				c.err = c.met.Conn.Run(ctx, c)
				close(c.over)
			})
		}
		<-s.up
		synctest.Wait()
		heard := 0
		for _, c := range clients {
			heard += len(c.heard)
			select {
			case <-c.over:
				if c.err == nil {
					t.Error("the connection that was not taken ended well")
				}
			default:
			}
		}
		if heard != 1 {
			t.Errorf("%d HELLOs came back", heard)
		}
		cancel()
		running.Wait()
	})
}

// given is a way whose connection is there.
type given struct{ conn net.Conn }

func (g *given) String() string                         { return "given" }
func (g *given) Kind() wire.CarrierKind                 { return wire.CarrierTCP }
func (g *given) Connection() uint16                     { return 0 }
func (g *given) Dial(context.Context) (net.Conn, error) { return g.conn, nil }
func (g *given) Taken()                                 {}
func (g *given) Lost()                                  {}
func (g *given) Direct() bool                           { return false }
func (g *given) Stuck()                                 {}

// fixed is a Leg with ways for one carrier.
type fixed []path.Way

func (f fixed) Ways(uint16) ([]path.Way, []time.Duration)                 { return f, make([]time.Duration, len(f)) }
func (f fixed) Again() ([]path.Way, []time.Duration)                      { return f.Ways(0) }
func (f fixed) Of(uint16, wire.CarrierKind) ([]path.Way, []time.Duration) { return f.Ways(0) }

// A relay that refuses is known to be gone while other ways are still tried.
func TestRefusalIsToldWhileOtherWaysAreTried(t *testing.T) {
	who := newPortals(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRelayed(5 * time.Millisecond)
		r.splice, r.packet = refused, silent
		info, _ := sessions()
		s := newSide(info, legs{r, "client", "splice", 0}, who.client, &tunnels{})
		told := make(chan struct{})
		s.Refused = func() { close(told) }
		began := time.Now()
		ctx, cancel := context.WithCancel(context.Background())
		go s.serve(ctx, s.First)
		<-told
		if took := time.Since(began); took > 20*time.Millisecond {
			t.Errorf("told after %v", took)
		}
		cancel()
		<-s.over
		if !errors.Is(s.err, syscall.ECONNREFUSED) {
			t.Errorf("it failed with %v", s.err)
		}
	})
}

// Nobody is suspected for a connection that ends.
func TestEndOfAConnectionIsNotStrange(t *testing.T) {
	for _, err := range []error{
		io.EOF, io.ErrUnexpectedEOF, os.NewSyscallError("read", syscall.ECONNRESET), &net.OpError{Op: "read", Err: syscall.ETIMEDOUT},
		&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")},
	} {
		if strange(fmt.Errorf("prove the peer: %w", err)) {
			t.Errorf("%v is suspected", err)
		}
	}
	if !strange(errors.New("another name")) || !strange(&net.OpError{Op: "local error", Err: errors.New("tls: bad record MAC")}) {
		t.Error("nobody is suspected")
	}
}
