package lan

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/proto/wire"
)

const (
	// maxPerPeer bounds the addresses of one peer.
	maxPerPeer = wire.MaxCandidates
	// maxLooks bounds the peers that are looked for at once.
	maxLooks = 64
	// firstPause is the one after the first question for a peer; the next are longer, up to
	// maxPause.
	firstPause = time.Second
	maxPause   = time.Minute
	// forgetTime is how long an address stays that was not heard again. Within that a
	// neighbour who claims others has no other in its place.
	forgetTime = 150 * time.Second
	// answerApart is how soon the same answer may be given again at an interface (RFC 6762
	// section 6).
	answerApart = time.Second
	// perSecond bounds the packets that are read in a second, and atOnce those read at once; what
	// else comes waits in the socket, where it is lost.
	perSecond = 100
	atOnce    = 100
	// retryTime is when sockets are opened again that could not be.
	retryTime = 10 * time.Second
)

// Config is what a Finder is made from.
type Config struct {
	Network *network.Watch // nil: this machine's network never changes
	// Port returns the port of the UDP socket at which other portals reach an address of
	// this one; 0: there is none.
	Port func(netip.Addr) uint16
	Log  *slog.Logger
}

// Finder finds portals. Its methods are safe for concurrent use.
type Finder struct {
	Config
	poke chan struct{} // capacity 1: somebody is looked for, or no longer

	mu    sync.Mutex // guards the following
	looks map[*look]struct{}
	near  map[int]nearby // by index
}

// look is one peer that is looked for.
type look struct {
	own, peer string
	key       [32]byte
	found     func([]wire.Candidate)
	due       time.Time // of the next question
	pause     time.Duration
	heard     map[netip.Addr]heard
	answered  map[answerKey]time.Time
}

type heard struct {
	port uint16
	at   time.Time
}

// answerKey is where an answer went.
type answerKey struct {
	at   *socket
	link int
}

// New returns a Finder. Run must be called for it.
func New(cfg Config) *Finder {
	return &Finder{Config: cfg, poke: make(chan struct{}, 1), looks: make(map[*look]struct{})}
}

// Look looks for a peer until end is called, and lets it find this portal, whose name is
// own. Both have the key, and nobody else. found is called with all addresses at which
// the peer may be, the newest first, whenever there is another; it must not block.
// At most 64 peers are looked for at once, of any more nothing is found.
func (f *Finder) Look(own, peer string, key [32]byte, found func([]wire.Candidate)) (end func()) {
	l := &look{
		own: own, peer: peer, key: key, found: found, pause: firstPause,
		heard: make(map[netip.Addr]heard), answered: make(map[answerKey]time.Time),
	}
	f.mu.Lock()
	if len(f.looks) < maxLooks {
		f.looks[l] = struct{}{}
	}
	f.mu.Unlock()
	f.wake()
	return func() {
		f.mu.Lock()
		delete(f.looks, l)
		f.mu.Unlock()
		f.wake()
	}
}

func (f *Finder) wake() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// Run speaks with the neighbours while there is whom to look for, until ctx is cancelled.
func (f *Finder) Run(ctx context.Context) error {
	var changes <-chan network.Change
	if f.Network != nil {
		c, end := f.Network.Changes()
		defer end()
		changes = c
	}
	for ctx.Err() == nil {
		if f.idle() {
			select {
			case <-f.poke:
			case <-ctx.Done():
			}
			continue
		}
		if err := f.speak(ctx, changes); err != nil {
			f.Log.Debug("portals on the local network are not looked for", "error", err)
			wait(ctx, changes, retryTime)
		}
	}
	return nil
}

func (f *Finder) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.looks) == 0
}

// wait waits for a change of the network, but not for longer than d.
func wait(ctx context.Context, changes <-chan network.Change, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changes:
	case <-ctx.Done():
	}
}

// speak opens sockets and uses them until the network changes, nobody is looked for any
// more, or ctx ends.
func (f *Finder) speak(ctx context.Context, changes <-chan network.Change) error {
	near, err := interfaces()
	if err != nil {
		return err
	}
	sockets, err := open(near)
	if err != nil {
		return err
	}
	f.begin(near)
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() {
		for _, s := range sockets {
			s.conn.Close()
		}
	}()
	defer cancel()
	for _, s := range sockets {
		reading.Go(func() { f.read(ctx, s) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			return nil
		case <-f.poke:
		case <-timer.C:
		}
		if f.idle() {
			return nil
		}
		labels, again := f.questions(time.Now())
		timer.Reset(time.Until(again))
		for chunk := range slices.Chunk(labels, maxQuestions) {
			b, err := query(chunk)
			if err != nil {
				return err
			}
			f.send(b, near, sockets)
		}
	}
}

// begin has everybody looked for anew, at these interfaces, and forgets what was heard.
func (f *Finder) begin(near []nearby) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.near = make(map[int]nearby)
	for _, n := range near {
		f.near[n.Index] = n
	}
	for l := range f.looks {
		l.due, l.pause = time.Time{}, firstPause
		clear(l.answered)
		clear(l.heard)
	}
}

func (f *Finder) send(b []byte, near []nearby, sockets []*socket) {
	for _, n := range near {
		for _, s := range sockets {
			if err := s.write(b, n.Index); err != nil {
				f.Log.Debug("question to the local network not sent", "interface", n.Name, "error", err)
			}
		}
	}
}

// questions returns the labels that are to be asked for now, and when the next is.
func (f *Finder) questions(now time.Time) (labels []string, again time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again = now.Add(maxPause)
	for l := range f.looks {
		if !now.Before(l.due) {
			labels = append(labels, l.label(l.peer, now))
			l.due = now.Add(l.pause)
			l.pause = min(2*l.pause, maxPause)
		}
		if l.due.Before(again) {
			again = l.due
		}
	}
	sort.Strings(labels)
	return labels, again
}

// day is for how long a name is used.
const day = 24 * time.Hour

// label is the name of one of the two portals for the other at a time.
func (l *look) label(of string, at time.Time) string {
	h := hmac.New(sha256.New, l.key[:])
	h.Write(binary.BigEndian.AppendUint64([]byte("netport lan name"), uint64(at.Unix())/uint64(day/time.Second)))
	h.Write([]byte(of))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// read takes what the neighbours say until the socket is closed.
func (f *Finder) read(ctx context.Context, s *socket) {
	b := make([]byte, maxPacket+1)
	left, since := atOnce, time.Now()
	var known names
	for ctx.Err() == nil {
		n, on, near, err := s.read(b)
		if err != nil {
			if ctx.Err() == nil { // an interface has gone, perhaps
				wait(ctx, nil, time.Second)
			}
			continue
		}
		if left--; left < 0 {
			wait(ctx, nil, time.Second/perSecond*atOnce-time.Since(since))
			left, since = atOnce, time.Now()
			continue // it is old by now
		}
		if time.Since(since) > time.Second {
			left, since = atOnce, time.Now()
		}
		if !near || n > maxPacket {
			continue
		}
		f.take(parse(b[:n]), s, on, &known)
	}
}

// names are the labels by which peers are asked for and ask, as they are at one time.
type names struct {
	at    time.Time
	looks int
	ask   map[string]*look // what this portal asks for
	own   map[string]*look // what it answers to
}

// renewLocked works them out again when a second has gone by: so much a neighbour cannot
// make it do more often.
func (k *names) renewLocked(f *Finder, now time.Time) {
	if k.ask != nil && now.Sub(k.at) < time.Second && k.looks == len(f.looks) {
		return
	}
	*k = names{at: now, looks: len(f.looks), ask: make(map[string]*look), own: make(map[string]*look)}
	for l := range f.looks {
		for _, at := range []time.Time{now.Add(-day), now, now.Add(day)} { // clocks differ
			k.ask[l.label(l.peer, at)] = l
			k.own[l.label(l.own, at)] = l
		}
	}
}

// take takes what one packet says.
func (f *Finder) take(m message, s *socket, on int, known *names) {
	if len(m.asked)+len(m.told) == 0 {
		return
	}
	now := time.Now()
	f.mu.Lock()
	near, ok := f.near[on]
	if !ok {
		f.mu.Unlock()
		return
	}
	known.renewLocked(f, now)
	var answers []string
	for _, label := range m.asked {
		if l := known.own[label]; l != nil && now.Sub(l.answered[answerKey{s, on}]) >= answerApart {
			l.answered[answerKey{s, on}] = now
			answers = append(answers, label)
		}
	}
	var found []*look
	for _, t := range m.told {
		if l := known.ask[t.label]; l != nil && l.hear(t, near, now) && !slices.Contains(found, l) {
			found = append(found, l)
		}
	}
	for _, l := range found {
		l.found(l.list())
	}
	f.mu.Unlock()
	for _, label := range answers {
		b, err := answer(label, near.places(f.Port))
		if err == nil {
			err = s.write(b, on)
		}
		if err != nil {
			f.Log.Debug("question of the local network not answered", "error", err)
		}
	}
}

// hear takes where the peer is said to be, and reports whether that is new. Only what a
// neighbour at the same interface can have is believed to be one's address.
func (l *look) hear(t told, near nearby, now time.Time) (changed bool) {
	for a, h := range l.heard {
		if now.Sub(h.at) > forgetTime {
			delete(l.heard, a)
		}
	}
	for _, a := range t.addrs {
		was, known := l.heard[a]
		if !near.onLink(a) || !known && len(l.heard) >= maxPerPeer || known && was.port != t.port && now.Sub(was.at) < answerApart {
			continue
		}
		l.heard[a] = heard{t.port, now}
		changed = changed || !known || was.port != t.port
	}
	return changed
}

// list returns the addresses of the peer, the newest first.
func (l *look) list() (list []wire.Candidate) {
	for a, h := range l.heard {
		list = append(list, wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginLAN, Addr: netip.AddrPortFrom(a, h.port)})
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i].Addr, list[j].Addr
		if x, y := l.heard[a.Addr()].at, l.heard[b.Addr()].at; !x.Equal(y) {
			return x.After(y)
		}
		return a.Compare(b) < 0
	})
	return list
}
