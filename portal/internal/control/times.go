package control

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// measureEvery is how often round trips are measured while nothing happens,
	// give or take a tenth.
	measureEvery = 6 * time.Hour
	// measureSoon bounds the wait after a connection or a change of the network:
	// portals that lost their server together do not measure together.
	measureSoon = 10 * time.Second
	// measureTime bounds one measurement.
	measureTime = 5 * time.Second
	// measuring bounds those under way.
	measuring = 8
	// A measurement that nothing has called for takes the nearest relays, and some
	// by chance: a portal is to cost little while it is idle.
	nearest, chance = 4, 2
)

// times is the round trips to relays and when to measure them. The Client's
// lock guards it, but for wake.
type times struct {
	wake chan struct{} // capacity 1: due has changed

	places   []wire.RelayPlace // as the server of now says
	due      time.Time         // zero: there is nothing to measure
	measured map[string]time.Duration
	all      time.Time        // when all of measured were measured; zero: not in this network
	sent     []wire.RelayTime // on the connection of now
}

func newTimes() times {
	return times{wake: make(chan struct{}, 1), measured: make(map[string]time.Duration)}
}

func (t *times) connected() { t.places, t.sent = nil, nil }

func (t *times) lost() {
	t.places, t.sent = nil, nil
	t.measureAt(time.Time{})
}

// moved takes that the network is another one: what was measured is void.
func (t *times) moved() {
	clear(t.measured)
	t.all = time.Time{}
	if len(t.places) > 1 {
		t.measureAt(time.Now().Add(rand.N(measureSoon)))
	}
}

func (t *times) measureAt(at time.Time) {
	t.due = at
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// relays takes which relays there are. It returns what the server is to be told
// at once, which is nothing if they have to be measured first.
func (t *times) relays(now time.Time, places []wire.RelayPlace) []wire.RelayTime {
	t.places = places
	maps.DeleteFunc(t.measured, func(name string, _ time.Duration) bool {
		return !slices.ContainsFunc(places, func(p wire.RelayPlace) bool { return p.Name == name })
	})
	if len(places) < 2 { // there is nothing to choose
		t.measureAt(time.Time{})
		return nil
	}
	for _, p := range places {
		if _, known := t.measured[p.Name]; !known || now.Sub(t.all) >= measureEvery {
			t.all = time.Time{}
			t.measureAt(now.Add(rand.N(measureSoon)))
			return nil
		}
	}
	t.measureAt(t.all.Add(next()))
	return t.news()
}

// next is when to measure again.
func next() time.Duration { return measureEvery*9/10 + rand.N(measureEvery/5) }

// choose returns the relays to measure now.
func (t *times) choose() []wire.RelayPlace {
	list := slices.Clone(t.places)
	if t.all.IsZero() || len(list) <= nearest+chance {
		return list
	}
	sort.Slice(list, func(i, j int) bool {
		// 0 is no answer, and comes last.
		return uint64(t.measured[list[i].Name]-1) < uint64(t.measured[list[j].Name]-1)
	})
	rand.Shuffle(len(list)-nearest, func(i, j int) { list[nearest+i], list[nearest+j] = list[nearest+j], list[nearest+i] })
	return list[:nearest+chance]
}

// took takes what was measured of places.
func (t *times) took(now time.Time, places []wire.RelayPlace, took []time.Duration) []wire.RelayTime {
	for i, p := range places {
		t.measured[p.Name] = took[i]
	}
	t.all = now
	t.measureAt(now.Add(next()))
	return t.news()
}

// news returns all round trips if one of them is not what the server was told;
// small differences do not count.
func (t *times) news() []wire.RelayTime {
	var list []wire.RelayTime
	news := len(t.sent) != len(t.measured)
	for _, name := range slices.Sorted(maps.Keys(t.measured)) {
		now := wire.RelayTime{Relay: name, Time: t.measured[name]}
		i := slices.IndexFunc(t.sent, func(s wire.RelayTime) bool { return s.Relay == name })
		news = news || i < 0 || differs(t.sent[i].Time, now.Time)
		list = append(list, now)
	}
	if !news {
		return nil
	}
	t.sent = list
	return list
}

// differs reports whether a round trip has changed by more than a tenth, and by
// more than a millisecond.
func differs(before, now time.Duration) bool {
	return (before == 0) != (now == 0) || (now-before).Abs() > max(before/10, time.Millisecond)
}

// measure measures round trips when they are due, until ctx is cancelled.
func (c *Client) measure(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.mu.Lock()
		due := c.times.due
		c.mu.Unlock()
		timer.Stop()
		if !due.IsZero() {
			timer.Reset(time.Until(due))
		}
		select {
		case <-timer.C:
			c.measureNow(ctx)
		case <-c.times.wake:
		case <-ctx.Done():
			return
		}
	}
}

// measureNow measures what is to be measured and tells the server what is new.
func (c *Client) measureNow(ctx context.Context) {
	c.mu.Lock()
	conn, server, network := c.conn, c.address.Addr(), c.networks.list[0].name
	places := c.times.choose()
	if conn == nil || len(places) == 0 {
		c.times.due = time.Time{}
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	took := c.measureEach(ctx, places, server)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil || c.conn != conn: // whatever came, it may be of a broken network
		return
	case c.networks.list[0].name != network:
		return // it is due again already
	}
	if news := c.times.took(time.Now(), places, took); news != nil {
		conn.Send(wire.RelayTimes{Times: news})
		conn.Probe()
	}
}

// measureEach returns the round trip to each relay; 0: no answer.
func (c *Client) measureEach(ctx context.Context, places []wire.RelayPlace, server netip.Addr) []time.Duration {
	took := make([]time.Duration, len(places))
	turn := make(chan struct{}, measuring)
	var all sync.WaitGroup
	for i, p := range places {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(ctx, measureTime)
			defer cancel()
			d, err := c.Measure(ctx, p, server)
			if err != nil {
				c.Log.Debug("relay not measured", "relay", p.Name, "error", err)
				return
			}
			took[i] = max(d.Truncate(time.Microsecond), time.Microsecond)
		})
	}
	all.Wait()
	return took
}
