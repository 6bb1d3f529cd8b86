package enrol

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/store"
)

// world is a desk on a store in a file, with a clock.
type world struct {
	t     testing.TB
	file  string
	store store.Store
	desk  *Desk
	now   atomic.Pointer[time.Time]
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, file: filepath.Join(t.TempDir(), "state.db")}
	s, err := store.Create(w.file)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(0)
	w.store, w.desk = s, NewDesk(s, w.clock)
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *world) clock() time.Time { return *w.now.Load() }

// pass sets the clock to so long after the beginning.
func (w *world) pass(d time.Duration) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(d)
	w.now.Store(&at)
}

// restart is a server that comes back with what is on disk.
func (w *world) restart() {
	w.t.Helper()
	w.store.Close()
	s, err := store.Open(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.desk = s, NewDesk(s, w.clock)
}

func (w *world) invite(in Invitation) Invited {
	w.t.Helper()
	if in.Name == "" {
		in.Role, in.Name = identity.Portal, "ann"
	}
	if in.Life == 0 {
		in.Life = time.Hour
	}
	list, err := w.desk.Invite([]Invitation{in})
	if err != nil {
		w.t.Fatal(err)
	}
	return list[0]
}

func key(n int) identity.KeyHash { return identity.KeyHash{byte(n), byte(n >> 8), 7} }

// claim is the right claim of an invitation.
func claim(in Invited, k identity.KeyHash) Claim {
	return Claim{ID: in.ID, Secret: in.Secret, Asked: identity.ID{Domain: "example.org", Role: in.Role, Name: in.Name}, Key: k, From: netip.MustParseAddr("192.0.2.1")}
}

// T25: of 200 claims of one token at once exactly one wins, whatever the order.
func TestTokenIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	in := w.invite(Invitation{})
	var won, lost atomic.Int32
	var winner atomic.Int32
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range 200 {
		all.Go(func() {
			<-start
			switch _, err := w.desk.Claim(claim(in, key(i+1))); {
			case err == nil:
				won.Add(1)
				winner.Store(int32(i + 1))
			case errors.Is(err, ErrToken):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	if won.Load() != 1 || lost.Load() != 199 {
		t.Fatalf("%d won and %d lost, want 1 and 199", won.Load(), lost.Load())
	}
	w.restart()
	if _, err := w.desk.Claim(claim(in, key(int(winner.Load())))); err != nil {
		t.Errorf("the winner, whose answer was lost: %v", err)
	}
	for i := range 200 {
		if _, err := w.desk.Claim(claim(in, key(i+1))); (err == nil) != (i+1 == int(winner.Load())) {
			t.Errorf("key %d after a restart: %v", i+1, err)
		}
	}
	w.pass(time.Hour)
	if _, err := w.desk.Claim(claim(in, key(int(winner.Load())))); !errors.Is(err, ErrToken) {
		t.Errorf("the winner after the token's end: %v", err)
	}
}

func TestEveryWrongClaimIsAnsweredAlike(t *testing.T) {
	w := newWorld(t)
	used, open, ended := w.invite(Invitation{}), w.invite(Invitation{}), w.invite(Invitation{Life: time.Minute})
	if _, err := w.desk.Claim(claim(used, key(1))); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	with := func(in Invited, change func(*Claim)) Claim {
		c := claim(in, key(2))
		change(&c)
		return c
	}
	for what, c := range map[string]Claim{
		"used":           claim(used, key(2)),
		"ended":          claim(ended, key(2)),
		"wrong secret":   with(open, func(c *Claim) { c.Secret[31] ^= 1 }),
		"zero secret":    with(open, func(c *Claim) { c.Secret = wire.Secret{} }),
		"no such token":  with(open, func(c *Claim) { c.ID[0] ^= 1 }),
		"zero token":     with(open, func(c *Claim) { c.ID, c.Secret = wire.TokenID{}, wire.Secret{} }),
		"another's name": with(open, func(c *Claim) { c.Asked.Name = "bo" }),
		"another role":   with(open, func(c *Claim) { c.Asked.Role = identity.Relay }),
	} {
		if got, err := w.desk.Claim(c); err != ErrToken || got.Name != "" {
			t.Errorf("%s: %+v, %v, want the one answer", what, got, err)
		}
	}
	if _, err := w.desk.Claim(claim(open, key(2))); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func TestGuessesAreLimited(t *testing.T) {
	w := newWorld(t)
	in := w.invite(Invitation{Life: MaxLife})
	guess := claim(in, key(1))
	guess.Secret[0] ^= 1
	for range tokenTries {
		if _, err := w.desk.Claim(guess); err != ErrToken {
			t.Fatal(err)
		}
	}
	other := w.invite(Invitation{Role: identity.Portal, Name: "bo"})
	if _, err := w.desk.Claim(claim(other, key(2))); err != ErrToken {
		t.Errorf("from an address with %d wrong tries: %v", sourceTries, err)
	}
	elsewhere := claim(other, key(2))
	elsewhere.From = netip.MustParseAddr("192.0.2.2")
	if _, err := w.desk.Claim(elsewhere); err != nil {
		t.Errorf("from another address: %v", err)
	}
	w.pass(sourcePause)
	if _, err := w.desk.Claim(claim(other, key(2))); err != nil {
		t.Errorf("a pause later: %v", err)
	}
	// The token that was guessed at stays shut, from everywhere.
	late := claim(in, key(1))
	late.From = netip.MustParseAddr("2001:db8::1")
	if _, err := w.desk.Claim(late); err != ErrToken {
		t.Errorf("a token with %d wrong tries: %v", tokenTries, err)
	}
}

func TestFloodOfGuessesIsBounded(t *testing.T) {
	w := newWorld(t)
	in := w.invite(Invitation{})
	for i := range 3 * maxSources {
		c := claim(in, key(1))
		c.ID = wire.TokenID{byte(i), byte(i >> 8), byte(i >> 16), 9}
		c.From = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		w.desk.failed(w.clock(), c)
	}
	if s, n := len(w.desk.attempts.sources), len(w.desk.attempts.tokens); s > maxSources || n > maxSources {
		t.Errorf("%d networks and %d tokens are remembered", s, n)
	}
}

func TestOperatorApprovesAKey(t *testing.T) {
	w := newWorld(t)
	in := w.invite(Invitation{Approve: true})
	thief, owner := key(0x11), key(0x22)
	woken := w.desk.Changed()
	for _, k := range []identity.KeyHash{thief, owner, thief} {
		if _, err := w.desk.Claim(claim(in, k)); err != ErrWait {
			t.Fatal(err)
		}
	}
	tokens, err := w.desk.Tokens()
	if err != nil || len(tokens) != 1 || len(tokens[0].Waiting) != 2 || tokens[0].Waiting[0].From != "192.0.2.1" {
		t.Fatalf("%+v, %v", tokens, err)
	}
	text, _ := owner.MarshalText()
	for _, digits := range []string{"", string(text[:7]), "ffffffff", string(text) + "0"} {
		if _, err := w.desk.Approve(digits); err == nil {
			t.Errorf("%q: approved", digits)
		}
	}
	select {
	case <-woken:
		t.Fatal("woken before the decision")
	default:
	}
	w.restart()
	woken = w.desk.Changed()
	if got, err := w.desk.Approve(string(text[:12])); err != nil || got.Used != owner {
		t.Fatalf("%+v, %v", got, err)
	}
	<-woken
	if _, err := w.desk.Claim(claim(in, owner)); err != nil {
		t.Errorf("the approved key: %v", err)
	}
	if _, err := w.desk.Claim(claim(in, thief)); err != ErrToken {
		t.Errorf("the other key: %v", err)
	}
	if _, err := w.desk.Approve(string(text)); err == nil {
		t.Error("approved twice")
	}
}

func TestRejectedKeyEndsItsToken(t *testing.T) {
	w := newWorld(t)
	in := w.invite(Invitation{Approve: true})
	for i := range maxWaiting + 1 {
		want := ErrWait
		if i == maxWaiting {
			want = ErrToken
		}
		if _, err := w.desk.Claim(claim(in, key(i+1))); err != want {
			t.Errorf("key %d: %v, want %v", i, err, want)
		}
	}
	k := key(3)
	text, _ := k.MarshalText()
	if _, err := w.desk.Reject(string(text)); err != nil {
		t.Fatal(err)
	}
	for i := range maxWaiting + 1 {
		want := ErrRejected
		if i == maxWaiting { // it never waited
			want = ErrToken
		}
		if _, err := w.desk.Claim(claim(in, key(i+1))); err != want {
			t.Errorf("key %d after the token was rejected: %v, want %v", i, err, want)
		}
	}
	if _, err := w.desk.Approve(string(text)); err == nil {
		t.Error("a key of a rejected token was approved")
	}
}

func TestTokensOfARevokedNameAreVoid(t *testing.T) {
	w := newWorld(t)
	ann, again, relay := w.invite(Invitation{}), w.invite(Invitation{}), w.invite(Invitation{Role: identity.Relay, Name: "ann"})
	if n, err := w.desk.Void(identity.Portal, "ann"); n != 2 || err != nil {
		t.Fatalf("%d void, %v", n, err)
	}
	for _, in := range []Invited{ann, again} {
		if _, err := w.desk.Claim(claim(in, key(1))); err != ErrToken {
			t.Errorf("a void token: %v", err)
		}
	}
	if _, err := w.desk.Claim(claim(relay, key(1))); err != nil {
		t.Errorf("the token of another role: %v", err)
	}
}

func TestWhatIsNotInvited(t *testing.T) {
	w := newWorld(t)
	for _, life := range []time.Duration{0, -time.Hour, time.Second, MaxLife + time.Second} {
		if _, err := w.desk.Invite([]Invitation{{Role: identity.Portal, Name: "ann", Life: life}}); err == nil {
			t.Errorf("a token of %v", life)
		}
	}
	var many []Invitation
	for i := range MaxTokens {
		many = append(many, Invitation{Role: identity.Portal, Name: fmt.Sprintf("p%d", i), Life: time.Hour})
	}
	_, err := w.desk.Invite(many)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.desk.Invite(many[:1]); err == nil {
		t.Error("more tokens than there may be")
	}
	w.pass(time.Hour)
	if list, err := w.desk.Tokens(); err != nil || len(list) != 0 {
		t.Errorf("%d tokens after their end, %v", len(list), err)
	}
	w.invite(Invitation{}) // those that have ended make room
	if entries, _ := w.desk.list(); len(entries) != 1 {
		t.Errorf("%d tokens are kept", len(entries))
	}
}

// T25: nothing on disk has the secret in it.
func TestSecretIsNotOnDisk(t *testing.T) {
	w := newWorld(t)
	in := w.invite(Invitation{Approve: true})
	if _, err := w.desk.Claim(claim(in, key(1))); err != ErrWait {
		t.Fatal(err)
	}
	b, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := in.ID.MarshalText()
	if !bytes.Contains(b, id) {
		t.Fatal("the token is not in the file at all: this test looks at the wrong one")
	}
	for _, form := range [][]byte{in.Secret[:], fmt.Appendf(nil, "%x", in.Secret[:]), fmt.Appendf(nil, "%X", in.Secret[:8])} {
		if bytes.Contains(b, form) {
			t.Errorf("the state has the secret in it: %x", form)
		}
	}
	if slices.Equal(in.Hash, in.Secret[:]) {
		t.Error("the hash is the secret")
	}
}
