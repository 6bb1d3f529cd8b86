package eyeballs

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func addrs(list ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestOrderAlternatesFamilies(t *testing.T) {
	got := Order(addrs("[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "10.0.0.1:1"))
	want := addrs("[2001:db8::1]:1", "10.0.0.1:1", "[2001:db8::2]:1", "[2001:db8::3]:1")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	got = Order(addrs("10.0.0.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"))
	want = addrs("10.0.0.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// network answers a dial after a delay; a negative one never.
type network map[netip.AddrPort]struct {
	delay time.Duration
	err   error
}

func (n network) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	h := n[a]
	if h.delay < 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(h.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h.err != nil {
		return nil, h.err
	}
	conn, _ := net.Pipe()
	return &named{conn, a}, nil
}

type named struct {
	net.Conn
	addr netip.AddrPort
}

func TestSilentAddressCostsAMomentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := addrs("[2001:db8::1]:1", "10.0.0.1:1")
		n := network{a[0]: {delay: -1}, a[1]: {delay: 10 * time.Millisecond}}
		start := time.Now()
		conn, err := Dial(t.Context(), a, n.dial)
		if err != nil || conn.(*named).addr != a[1] {
			t.Fatalf("got %v, %v", conn, err)
		}
		if took, want := time.Since(start), Stagger+10*time.Millisecond; took != want {
			t.Errorf("took %v, want %v", took, want)
		}
	})
}

func TestFailureStartsTheNextAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		a := addrs("[2001:db8::1]:1", "10.0.0.1:1")
		n := network{a[0]: {delay: time.Millisecond, err: refused}, a[1]: {delay: time.Millisecond}}
		start := time.Now()
		if _, err := Dial(t.Context(), a, n.dial); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 2*time.Millisecond {
			t.Errorf("took %v, want 2ms", took)
		}
		n[a[1]] = n[a[0]]
		if _, err := Dial(t.Context(), a, n.dial); err != refused {
			t.Errorf("all fail: %v, want %v", err, refused)
		}
	})
}

func TestEachAttemptBeginsAtItsTime(t *testing.T) {
	at := []time.Duration{0, 50 * time.Millisecond, 250 * time.Millisecond}
	refused := errors.New("refused")
	for _, c := range []struct {
		name string
		fail time.Duration // when the first fails; 0: never
		want []time.Duration
	}{
		{"all are silent", 0, []time.Duration{0, 50 * time.Millisecond, 250 * time.Millisecond}},
		{"the first fails before the second began", 20 * time.Millisecond, []time.Duration{0, 20 * time.Millisecond, 220 * time.Millisecond}},
		{"the first fails after the second began", 100 * time.Millisecond, []time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond}},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			got := make([]time.Duration, len(at))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			RaceAt(ctx, at, []int{0, 1, 2}, func(ctx context.Context, i int) (net.Conn, error) {
				got[i] = time.Since(start)
				if i == 0 && c.fail > 0 {
					time.Sleep(c.fail)
					return nil, refused
				}
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: they began at %v, want %v", c.name, got, c.want)
			}
		})
	}
}

func TestCancelEndsEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := addrs("[2001:db8::1]:1", "10.0.0.1:1")
		n := network{a[0]: {delay: -1}, a[1]: {delay: -1}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Dial(ctx, a, n.dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}) // synctest fails if an attempt is left over
}
