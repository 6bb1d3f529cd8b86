package tunnel

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// say sends a word to the echo and wants it back.
func say(t *testing.T, c io.ReadWriter, word string) {
	t.Helper()
	b := make([]byte, len(word))
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != word {
		t.Fatalf("%q for %q, %v", b, word, err)
	}
}

// TestCarrierIsMadeAnewBeforeItIsLeft: its streams move to one that is made in its
// place, and then it is closed; nothing is made again for nothing.
func TestCarrierIsMadeAnewBeforeItIsLeft(t *testing.T) {
	var came atomic.Int32 // the owner looks at each that comes
	p := newPair(t, dialTo(service(t, echo)), func(client, _ *Config) { client.Came = func() { came.Add(1) } })
	c := dial(t, entry(t, p.client))
	defer c.Close()
	say(t, c, "hello")
	old := time.Now()
	judge := func(c Proof) Verdict {
		if !c.Client || len(c.Chain) == 0 {
			t.Errorf("judged by %d certificates, client %t", len(c.Chain), c.Client)
		}
		if c.Since.Before(old) {
			return Replace
		}
		return Keep
	}
	for range 3 {
		p.client.Review(judge)
	}
	waitFor(t, "the old carrier to go", func() bool {
		s := p.client.Stats()
		return len(s.Each) == 1 && s.Each[0].Connection != 0 && !s.Each[0].Retired
	})
	if n := came.Load(); n != 2 {
		t.Errorf("told of %d carriers that came, want 2", n)
	}
	say(t, c, "again")
	p.client.Review(judge)
	if s := p.client.Stats(); len(s.Each) != 1 || s.Each[0].Retired {
		t.Errorf("carriers %+v", s.Each)
	}
	if n := p.server.Stats().Carriers; n != 1 {
		waitFor(t, "the server's", func() bool { return p.server.Stats().Carriers == 1 })
	}
}

// TestCarrierStaysUntilThereIsAnother, and is kept if its peer is all right again.
func TestCarrierStaysUntilThereIsAnother(t *testing.T) {
	p := newPair(t, dialTo(service(t, echo)), alone)
	c := dial(t, entry(t, p.client))
	defer c.Close()
	say(t, c, "hello")
	p.client.Review(func(Proof) Verdict { return Replace })
	if s := p.client.Stats(); len(s.Each) != 1 || !s.Each[0].Retired {
		t.Errorf("carriers %+v", s.Each)
	}
	say(t, c, "on the old one")
	p.client.Review(func(Proof) Verdict { return Keep })
	if s := p.client.Stats(); len(s.Each) != 1 || s.Each[0].Retired {
		t.Errorf("kept after all: %+v", s.Each)
	}
	// A session that has ended takes its carrier with it, whatever is kept.
	p.client.Retire(p.session, wire.ReasonReplaced)
	p.client.Review(func(Proof) Verdict { return Keep })
	if s := p.client.Stats(); len(s.Each) != 1 || !s.Each[0].Retired {
		t.Errorf("of a session that has ended: %+v", s.Each)
	}
	say(t, c, "still")
	p.client.Review(func(Proof) Verdict { return Drop })
	waitFor(t, "the carrier to be dropped", func() bool { return p.client.Stats().Carriers == 0 })
	p.stop() // it would wait for a way back
}
