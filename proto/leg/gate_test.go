package leg

import (
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

var (
	home  = netip.MustParseAddrPort("198.51.100.7:40000")
	other = netip.MustParseAddrPort("203.0.113.9:40000")
)

// relay is a Gate with the one Binding of testID.
type relay struct {
	gate *Gate
	now  time.Time
	last Binding
}

func newRelay() *relay {
	return &relay{gate: NewGate(), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
}

func (r *relay) receive(t *testing.T, packet []byte, source netip.AddrPort) (Verdict, []byte) {
	t.Helper()
	q, err := ParseRequest(packet)
	if err != nil {
		t.Fatal(err)
	}
	v, answer := r.gate.Judge(r.now, q, source, testSecret, r.last)
	if v == Bind {
		r.last = Binding{Counter: q.Counter, Source: source}
	}
	if silent := v <= TooMany; silent != (answer == nil) {
		t.Errorf("verdict %v with an answer of %d bytes", v, len(answer))
	}
	return v, answer
}

func (r *relay) want(t *testing.T, what string, want Verdict, packet []byte, source netip.AddrPort) []byte {
	t.Helper()
	v, answer := r.receive(t, packet, source)
	if v != want {
		t.Fatalf("%s: verdict %v, want %v", what, v, want)
	}
	return answer
}

// bind runs a bind to its end and returns both requests.
func (r *relay) bind(t *testing.T, b *Binder, source netip.AddrPort) (first, second []byte) {
	t.Helper()
	first, _ = b.Packet(r.now)
	if !b.Handle(r.want(t, "first request", Challenge, first, source)) {
		t.Fatal("the portal refuses the challenge")
	}
	second, _ = b.Packet(r.now)
	if !b.Handle(r.want(t, "second request", Bind, second, source)) {
		t.Fatal("the portal refuses the success")
	}
	return first, second
}

func TestBindTakesTwoRequestsAndTellsTheMappedAddress(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 0)
	r.bind(t, b, home)
	if got, bound := b.Mapped(); got != home || !bound {
		t.Errorf("mapped %v, bound %v; want %v", got, bound, home)
	}
	if want := (Binding{Counter: 1, Source: home}); r.last != want {
		t.Errorf("binding %v, want %v", r.last, want)
	}
	if packet, again := b.Packet(r.now); packet != nil || !again.IsZero() {
		t.Errorf("a bound leg wants to send %x at %v", packet, again)
	}
}

func TestReplaysMoveNothing(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 0)
	first, second := r.bind(t, b, home)
	r.want(t, "first request from elsewhere", OldCounter, first, other)
	r.want(t, "second request from elsewhere", OldCounter, second, other)
	r.want(t, "first request again", OldCounter, first, home)
	r.want(t, "second request again: its answer may be lost", Repeat, second, home)
	r.bind(t, roam(b), other)
	r.want(t, "the bind of before the move", OldCounter, second, home)
}

func roam(b *Binder) *Binder { b.Start(); return b }

func TestCapturedBindDoesNotBindAnotherSource(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 0)
	first, _ := b.Packet(r.now)
	b.Handle(r.want(t, "first request", Challenge, first, home))
	second, _ := b.Packet(r.now)
	r.want(t, "second request, caught on its way and sent from elsewhere", WrongNonce, second, other)
	r.want(t, "the same from its own source", Bind, second, home)
}

func TestNonceIsGoodForItsTimeOnly(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  Verdict
	}{
		{0, Bind}, {NonceLifetime, Bind}, {NonceLifetime + time.Second, WrongNonce}, {-time.Second, WrongNonce},
	} {
		r, b := newRelay(), NewBinder(testID, testSecret, 0)
		r.gate.keys(r.now.Add(-keyPeriod + time.Second)) // the keys change in between
		first, _ := b.Packet(r.now)
		b.Handle(r.want(t, "first request", Challenge, first, home))
		second, _ := b.Packet(r.now)
		r.now = r.now.Add(c.after)
		r.want(t, "second request after "+c.after.String(), c.want, second, home)
	}
}

func TestNonceOfAnotherRelayOrConnectionIsWrong(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 0)
	first, _ := b.Packet(r.now)
	b.Handle(r.want(t, "first request", Challenge, first, home))

	foreign := b.current
	foreign.ID.Connection++
	r.want(t, "nonce with another connection", WrongNonce, appendRequest(nil, foreign, testSecret), home)

	second, _ := b.Packet(r.now)
	r.gate = NewGate()
	r.want(t, "nonce after a restart", WrongNonce, second, home)
}

func TestWrongSecretIsSilentWhateverElseIsRight(t *testing.T) {
	r := newRelay()
	b := NewBinder(testID, wire.NewSecret(), 0)
	packet, _ := b.Packet(r.now)
	r.want(t, "another secret", WrongMAC, packet, home)
}

func TestChallengesAreLimited(t *testing.T) {
	r := newRelay()
	caught, _ := NewBinder(testID, testSecret, 0).Packet(r.now)
	for range MaxChallenges {
		r.want(t, "repeated request", Challenge, caught, other)
	}
	r.want(t, "one too many in this second", TooMany, caught, other)
	r.now = r.now.Add(time.Second)
	r.bind(t, NewBinder(testID, testSecret, 0), home)
}
