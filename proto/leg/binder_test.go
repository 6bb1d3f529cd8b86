package leg

import (
	"testing"
	"time"
)

func TestBinderRepeatsEverSlowerAndTheSameBytes(t *testing.T) {
	b, now := NewBinder(testID, testSecret, 0), time.Unix(1_800_000_000, 0)
	want := []time.Duration{200, 400, 800, 1600, 2000, 2000}
	first, _ := b.Packet(now)
	for i, w := range want {
		if i > 0 {
			packet, _ := b.Packet(now)
			if string(packet) != string(first) {
				t.Fatalf("repetition %d differs from the first", i)
			}
		}
		packet, again := b.Packet(now)
		if packet != nil || again.Sub(now) != w*time.Millisecond {
			t.Fatalf("after request %d: sends %d bytes, waits %v, want %v", i, len(packet), again.Sub(now), w*time.Millisecond)
		}
		now = again
	}
}

func TestBinderStartsAgainWhenItsSecondRequestStaysUnanswered(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 41)
	first, _ := b.Packet(r.now)
	b.Handle(r.want(t, "first request", Challenge, first, home))
	for range maxRepeats + 1 {
		packet, again := b.Packet(r.now)
		if q, err := ParseRequest(packet); err != nil || q.nonce == nil || q.Counter != 42 {
			t.Fatalf("request %+v, %v; want the second of bind 42", q, err)
		}
		r.now = again
	}
	packet, _ := b.Packet(r.now)
	if q, err := ParseRequest(packet); err != nil || q.nonce != nil || q.Counter != 43 {
		t.Fatalf("request %+v, %v; want the first of bind 43", q, err)
	}
}

func TestBinderIgnoresWhatIsNoAnswerToIt(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 0)
	first, _ := b.Packet(r.now)
	challenge := r.want(t, "first request", Challenge, first, home)

	elsewhere := NewBinder(testID, testSecret, 0)
	if elsewhere.Handle(challenge) {
		t.Error("an answer to another transaction is taken")
	}
	forged := append([]byte(nil), challenge...)
	forged[len(forged)-1] ^= 1
	if b.Handle(forged) || b.Handle(nil) || b.Handle([]byte("data")) || b.Handle(first) {
		t.Error("a forged answer is taken")
	}
	if !b.Handle(challenge) {
		t.Error("the true answer is refused")
	}
	if b.Handle(challenge) {
		t.Error("the challenge is taken twice")
	}
}
