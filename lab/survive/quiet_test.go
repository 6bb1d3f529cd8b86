package survive

import (
	"net"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// A portal moves while there is no server that could tell the other one, and nobody on the connection has anything to say.
// Who speaks first, on either side, soon after or long after, is heard within seconds. Of a NAT that has another address
// neither portal knows: they ask each other from time to time.
func TestPortalMovesInSilenceWithoutServer(t *testing.T) {
	t.Parallel()
	const (
		most  = 5 * time.Second
		check = 15 * time.Second
	)
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.roaming()
		laptop := w.laptop.Host()
		away, back := laptop.Leave, func() { laptop.SetUp(true) }
		p := w.out(t)
		w.Server.Kill()
		w.waitServer(t, false)
		for _, story := range []struct {
			name            string
			move            func()
			silence         time.Duration
			speaker, hearer net.Conn
			most            time.Duration
		}{
			{"to another address, and the other side speaks", away, 5 * time.Second, p.Service, p.Client, most},
			{"back, and the other side speaks long after", back, whole(20*time.Second, time.Minute), p.Service, p.Client, most},
			{"to another address, and speaks", away, time.Second, p.Client, p.Service, most},
			{"back, and speaks", back, time.Second, p.Client, p.Service, most},
			{"behind another address", w.home.Renumber, 5 * time.Second, p.Service, p.Client, check + most},
		} {
			t.Run(story.name, func(t *testing.T) {
				await.Limit(t, p.Client)
				await.Limit(t, p.Service)
				await.RoundTrip(t, p.Client, p.Service)
				await.Passing(t, 2*time.Second) // until nobody owes anything
				story.move()
				await.Passing(t, story.silence)
				start := time.Now()
				await.RoundTrip(t, story.speaker, story.hearer)
				took := time.Since(start)
				t.Logf("heard and answered after %v", took)
				if took > story.most {
					t.Errorf("heard and answered after %v, want %v at most", took, story.most)
				}
			})
		}
	})
}
