package network

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// machine is a machine as a Watch sees it. Its clocks are a bubble's, and what
// the test adds to them.
type machine struct {
	mu     sync.Mutex // guards the following
	state  state
	asleep time.Duration // in all
	set    time.Duration // of the wall clock, in all
	blind  bool          // no clock runs through a sleep

	began time.Time
	signs chan<- struct{}
}

func (m *machine) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// watch runs a Watch of the machine until the test is over, and returns what it
// tells.
func watch(t *testing.T, m *machine) (*Watch, <-chan Change) {
	m.began = time.Now()
	w := &Watch{
		log: slog.New(slog.DiscardHandler), listeners: make(map[chan Change]struct{}), hurry: make(chan struct{}, 1),
		look: func() (state, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.state, nil
		},
		clock: func() reading {
			m.mu.Lock()
			defer m.mu.Unlock()
			ran := time.Since(m.began)
			return reading{running: ran, booted: ran + m.asleep, wall: m.began.Add(ran + m.asleep + m.set), tells: !m.blind}
		},
		listen: func(ctx context.Context, signs chan<- struct{}) {
			m.signs = signs
			<-ctx.Done()
		},
		now: m.state,
	}
	changes, end := w.Changes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		end()
		cancel()
		<-done
	})
	synctest.Wait()
	return w, changes
}

// want checks what has been told when the time given is over.
func want(t *testing.T, what string, changes <-chan Change, within time.Duration, want Change) {
	t.Helper()
	time.Sleep(within)
	synctest.Wait()
	var got Change
	select {
	case got = <-changes:
	default:
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: told %+v, want %+v", what, got, want)
	}
}

func TestBurstOfSignsIsOneChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{state: state{id: ID{addr("192.0.2.1"), netip.MustParsePrefix("192.0.2.0/24")}, addrs: []netip.Addr{addr("192.0.2.7")}}}
		w, changes := watch(t, m)
		lte := ID{Prefix: netip.MustParsePrefix("198.51.100.9/32")}
		steps := []state{
			{id: m.state.id, links: []string{"wlan0"}},
			{addrs: []netip.Addr{addr("198.51.100.9")}},
			{id: lte, addrs: []netip.Addr{addr("198.51.100.9"), addr("2001:db8::9")}},
		}
		for _, s := range steps {
			m.change(func() { m.state = s })
			m.signs <- struct{}{}
			time.Sleep(20 * time.Millisecond)
		}
		want(t, "moved", changes, time.Second, Change{
			Network: true, New: []netip.Addr{addr("198.51.100.9"), addr("2001:db8::9")}, Gone: []netip.Addr{addr("192.0.2.7")},
		})
		if w.Current() != lte {
			t.Errorf("current network %v, want %v", w.Current(), lte)
		}
		m.signs <- struct{}{}
		want(t, "a sign of nothing", changes, time.Minute, Change{})
	})
}

func TestListenerThatIsSlowGetsOneChangeOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		_, changes := watch(t, m)
		for _, addrs := range [][]netip.Addr{{addr("10.0.0.1"), addr("10.0.0.2")}, {addr("10.0.0.2"), addr("10.0.0.3")}, {addr("10.0.0.2")}} {
			m.change(func() { m.state.addrs = addrs })
			m.signs <- struct{}{}
			time.Sleep(time.Second)
		}
		want(t, "all", changes, 0, Change{New: []netip.Addr{addr("10.0.0.2")}, Gone: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.3")}})
	})
}

func TestClocksTellOfSleepAndOfBeingSet(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(m *machine)
		want Change
	}{
		{"nothing", func(*machine) {}, Change{}},
		{"drift", func(m *machine) { m.set = 500 * time.Millisecond }, Change{}},
		{"suspended for an hour", func(m *machine) { m.asleep = time.Hour }, Change{Away: time.Hour}},
		{"set forth by an hour", func(m *machine) { m.set = time.Hour }, Change{Clock: time.Hour}},
		{"set back by an hour", func(m *machine) { m.set = -time.Hour }, Change{Clock: -time.Hour}},
		{"set forth by ten years", func(m *machine) { m.set = 87600 * time.Hour }, Change{Clock: 87600 * time.Hour}},
		{"set while it slept", func(m *machine) { m.asleep, m.set = time.Minute, -time.Hour }, Change{Away: time.Minute, Clock: -time.Hour}},
		{"suspended, and no clock tells", func(m *machine) { m.blind, m.asleep = true, time.Hour }, Change{Away: time.Hour}},
		{"set back, and no clock tells", func(m *machine) { m.blind, m.set = true, -time.Hour }, Change{Clock: -time.Hour}},
	} {
		for _, busy := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{}
				w, changes := watch(t, m)
				tick := 5 * time.Second
				if busy {
					time.Sleep(4500 * time.Millisecond) // a tick is due in a moment
					release := w.Hold()
					defer release()
					synctest.Wait()
					tick = time.Second
				}
				m.change(func() { c.then(m) })
				want(t, c.name, changes, tick, c.want)
				want(t, c.name+", afterwards", changes, time.Minute, Change{})
			})
		}
	}
}

func TestProcessThatWasStoppedWasAway(t *testing.T) {
	then := reading{running: time.Minute, booted: time.Minute, wall: time.Unix(1e9, 0), tells: true}
	now := then
	now.running += 61 * time.Second
	now.booted += 61 * time.Second
	now.wall = now.wall.Add(61 * time.Second)
	if away, set := now.since(then, time.Second); away != time.Minute || set != 0 {
		t.Errorf("away %v, set %v", away, set)
	}
	if away, set := now.since(then, 60*time.Second); away != 0 || set != 0 {
		t.Errorf("a tick that was a second late: away %v, set %v", away, set)
	}
}

func TestNetworkIsNamedByTheAddressThatGoesToItsGateway(t *testing.T) {
	on := func(index int, prefix string) holder {
		return holder{netip.MustParsePrefix(prefix), net.Interface{Index: index, Name: "if", Flags: net.FlagRunning}}
	}
	all := []holder{on(2, "2001:db8::7/64"), on(2, "10.1.0.7/16"), on(2, "192.0.2.7/24"), on(3, "172.16.0.1/12")}
	for _, c := range []struct {
		route route
		want  string
	}{
		{route{addr("192.0.2.1"), 2}, "192.0.2.1 192.0.2.0/24"},
		{route{addr("203.0.113.1"), 2}, "203.0.113.1 10.1.0.0/16"}, // a gateway outside of every prefix
		{route{netip.Addr{}, 3}, "- 172.16.0.0/12"},
		{route{}, "- 10.1.0.0/16"},
		{route{addr("192.0.2.1"), 9}, "192.0.2.1 -"},
	} {
		if got := stateOf(all, c.route).id.String(); got != c.want {
			t.Errorf("route %v: %q, want %q", c.route, got, c.want)
		}
	}
}
