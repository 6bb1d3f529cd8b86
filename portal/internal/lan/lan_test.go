package lan

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

var now = time.Date(2026, 11, 23, 23, 59, 0, 0, time.UTC)

// Both portals work out the same names, others for the other direction, another day or
// another key; and clocks that differ by minutes around midnight do no harm.
func TestNamesAreOfOneDirectionAndDay(t *testing.T) {
	ann := &look{own: "ann", peer: "bo", key: [32]byte{1}}
	bo := &look{own: "bo", peer: "ann", key: [32]byte{1}}
	asked := ann.label(ann.peer, now)
	if got := bo.label(bo.own, now); got != asked {
		t.Errorf("bo answers to %s, ann asks for %s", got, asked)
	}
	stranger := &look{own: "ann", peer: "bo", key: [32]byte{2}}
	for name, other := range map[string]string{
		"direction": ann.label(ann.own, now), "day": ann.label(ann.peer, now.Add(day)), "key": stranger.label("bo", now),
	} {
		if other == asked {
			t.Errorf("the name for another %s is the same", name)
		}
	}
	if strings.Contains(asked, "bo") || len(asked) != 32 {
		t.Errorf("the name is %q", asked)
	}
	f := New(Config{})
	f.looks[bo] = struct{}{}
	var known names
	known.renewLocked(f, now.Add(2*time.Minute)) // bo's clock is ahead
	if known.own[asked] != bo {
		t.Error("a portal whose clock is two minutes ahead does not answer")
	}
}

// here is an interface.
var here = nearby{prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.7.2/24"), netip.MustParsePrefix("fd00:7::2/64")}}

// What one portal answers another reads, by each IP version with its own port.
func TestAnswersAreRead(t *testing.T) {
	l := &look{heard: make(map[netip.Addr]heard)}
	label := l.label("bo", now)
	b, err := answer(label, here.places(func(a netip.Addr) uint16 {
		if a.Is4() {
			return 4000
		}
		return 6000
	}))
	if err != nil {
		t.Fatal(err)
	}
	m := parse(b)
	if len(m.asked) > 0 || len(m.told) != 2 {
		t.Fatalf("%+v", m)
	}
	for _, told := range m.told {
		if told.label != label || !l.hear(told, here, now) {
			t.Errorf("%+v is not heard", told)
		}
	}
	var at []string
	for _, c := range l.list() {
		at = append(at, c.Addr.String())
	}
	if slices.Sort(at); !slices.Equal(at, []string{"192.168.7.2:4000", "[fd00:7::2]:6000"}) {
		t.Errorf("heard: %v", at)
	}
}

// A question is read by whom it is for.
func TestQuestionsAreRead(t *testing.T) {
	labels := []string{"one", "two"}
	b, err := query(labels)
	if err != nil {
		t.Fatal(err)
	}
	if m := parse(b); !slices.Equal(m.asked, labels) || len(m.told) > 0 {
		t.Errorf("%+v", m)
	}
}

// T41: a neighbour that knows what this portal asks for, since it asks all, names other
// people's addresses, too many of its own, and others all the time.
func TestNeighbourIsBelievedLittle(t *testing.T) {
	l := &look{heard: make(map[netip.Addr]heard)}
	var victims []netip.Addr
	for _, a := range []string{"192.0.2.1", "192.168.8.1", "127.0.0.1", "::1", "fe80::1", "fd00:8::1", "0.0.0.0"} {
		victims = append(victims, netip.MustParseAddr(a))
	}
	if l.hear(told{port: 4000, addrs: victims}, here, now) || len(l.heard) > 0 {
		t.Errorf("heard: %v", l.list())
	}
	for i := range 5000 {
		l.hear(told{port: 4000, addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 7, byte(i)})}}, here, now)
	}
	first := l.list()
	if len(first) != maxPerPeer {
		t.Errorf("%d addresses of one peer", len(first))
	}
	for i := range 1000 { // the port of one, over and over
		l.hear(told{port: uint16(5000 + i), addrs: []netip.Addr{first[0].Addr.Addr()}}, here, now.Add(time.Duration(i)*time.Millisecond))
	}
	if list := l.list(); list[0].Addr.Port() != 4000 {
		t.Errorf("within a second: %v", list)
	}
	l.hear(told{port: 4000, addrs: []netip.Addr{netip.MustParseAddr("192.168.7.99")}}, here, now.Add(forgetTime+time.Second))
	if list := l.list(); len(list) != 1 || list[0] != (wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginLAN, Addr: netip.MustParseAddrPort("192.168.7.99:4000")}) {
		t.Errorf("after they have fallen silent: %v", list)
	}
}

// Packets that nobody in his right mind sends end in nothing, soon.
func TestHostilePacketsEndInNothing(t *testing.T) {
	header := func(response bool, questions, answers int) []byte {
		b := make([]byte, 12)
		if response {
			b[2] = 0x80
		}
		b[4], b[5], b[6], b[7] = byte(questions>>8), byte(questions), byte(answers>>8), byte(answers)
		return b
	}
	loop := append(header(true, 0, 65535), 0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 7, 0, 0, 0, 0, 1, 1, 0)
	chain := header(false, 1, 0)
	for i := range 2000 { // each points to the one before
		chain = append(chain, 0xc0|byte((10+2*i)>>8), byte(10+2*i))
	}
	many, err := query(slices.Repeat([]string{"one"}, 500))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "a header": header(true, 65535, 65535), "a loop": loop, "a chain": chain, "zeroes": make([]byte, maxPacket),
	} {
		if m := parse(b); len(m.asked)+len(m.told) > 0 {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if m := parse(many); len(m.asked) > maxRecords {
		t.Errorf("%d questions are looked at", len(m.asked))
	}
	places := make([]place, 200)
	for i := range places {
		places[i] = place{4000, []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 7, byte(i)})}}
	}
	for i := range places {
		places[i].port = uint16(1024 + i)
	}
	if b, err := answer(strings.Repeat("a", 32), places[:20]); err != nil || len(parse(b).told) != 20 {
		t.Errorf("20 places: %d, %v", len(parse(b).told), err)
	}
	if b, err := answer(strings.Repeat("a", 32), places); err == nil && len(parse(b).told) > maxRecords {
		t.Errorf("%d records are looked at", len(parse(b).told))
	}
}

func FuzzParse(f *testing.F) {
	q, _ := query([]string{"one", "two"})
	a, _ := answer("one", here.places(func(netip.Addr) uint16 { return 4000 }))
	f.Add(q)
	f.Add(a)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := parse(b)
		if len(m.asked)+len(m.told) > maxRecords {
			t.Errorf("%d records", len(m.asked)+len(m.told))
		}
	})
}

// A portal that looks for many asks for all, and ever more rarely.
func TestQuestionsBecomeRare(t *testing.T) {
	f := New(Config{Log: slog.New(slog.DiscardHandler)})
	for i := range 2 * maxLooks {
		end := f.Look("ann", fmt.Sprint("p", i), [32]byte{byte(i)}, func([]wire.Candidate) { t.Error("found") })
		defer end()
	}
	asked, at := 0, now
	for range 20 {
		labels, again := f.questions(at)
		asked += len(labels)
		at = again
	}
	if took := at.Sub(now); asked != 20*maxLooks || took < 10*time.Minute {
		t.Errorf("%d questions in %v", asked, took)
	}
}
