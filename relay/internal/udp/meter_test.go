package udp

import (
	"testing"
	"time"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/drop"
)

// at is a time of a clock that stands where the test puts it.
func at(d time.Duration) int64 { return int64(d) }

func TestMeterHoldsTheRateOfPackets(t *testing.T) {
	m := newMeter(bpf.Terms{Packets: 100}, nil) // one in 10 ms
	one := make([]byte, 1)
	admitted := func(now time.Duration, offered int) (n int) {
		for range offered {
			n += m.admit(at(now), one, 1)
		}
		return n
	}
	for _, c := range []struct {
		now  time.Duration
		want int
	}{
		{0, 11}, // the first and a burst of 100 ms
		{0, 0},
		{9 * time.Millisecond, 0},
		{10 * time.Millisecond, 1},
		{60 * time.Millisecond, 5},
		{10 * time.Second, 11}, // rest saves up no more than the burst
	} {
		if got := admitted(c.now, 50); got != c.want {
			t.Errorf("at %v: %d packets of 50, want %d", c.now, got, c.want)
		}
	}
	total := 0
	for ms := range 10_000 {
		total += admitted(20*time.Second+time.Duration(ms)*time.Millisecond, 1)
	}
	if total < 1000 || total > 1011 {
		t.Errorf("%d packets in 10 s at 100 a second", total)
	}
}

func TestMeterHoldsTheRateOfBytes(t *testing.T) {
	m := newMeter(bpf.Terms{Bytes: 10 << 10}, nil) // 1 KiB in 100 ms
	half := make([]byte, 512)
	for i, want := range []int{1, 1, 1, 0} {
		if got := m.admit(at(time.Second), half, len(half)); got != want {
			t.Errorf("packet %d: %d, want %d", i, got, want)
		}
	}
	if m.admit(at(time.Second), nil, 0) != 0 {
		t.Error("an empty packet passes a direction that is ahead of its rate")
	}
	if got := m.admit(at(time.Second+50*time.Millisecond), half, len(half)); got != 1 {
		t.Errorf("%d packets 50 ms later, want 1", got)
	}
	long := make([]byte, 60<<10) // a large packet is paid for afterwards
	if m.admit(at(10*time.Second), long, len(long)) != 1 || m.admit(at(15900*time.Millisecond-1), half, 512) != 0 || m.admit(at(15900*time.Millisecond), half, 512) != 1 {
		t.Error("60 KiB are not paid for by 6 s less the burst")
	}
}

func TestMeterHoldsTheTighterOfTwoRates(t *testing.T) {
	small, large := make([]byte, 1), make([]byte, 1024)
	terms := bpf.Terms{Packets: 100, Bytes: 20 << 10}
	m := newMeter(terms, nil)
	n := 0
	for range 50 {
		n += m.admit(0, small, 1)
	}
	if n != 11 {
		t.Errorf("%d small packets, want 11 as by the rate of packets", n)
	}
	m = newMeter(terms, nil)
	n = 0
	for range 50 {
		n += m.admit(0, large, 1024)
	}
	if n != 3 {
		t.Errorf("%d large packets, want 3 as by the rate of bytes", n)
	}
}

func TestMeterAdmitsTheFirstOfJoinedPackets(t *testing.T) {
	m := newMeter(bpf.Terms{Packets: 20}, nil) // one in 50 ms
	if got := m.admit(0, make([]byte, 450), 100); got != 3 {
		t.Errorf("%d of 5 joined packets, want 3", got)
	}
	if got := m.admit(at(200*time.Millisecond), make([]byte, 150), 100); got != 2 {
		t.Errorf("%d of 2 joined packets, want both", got)
	}
}

func TestNewTermsGrantNoNewBurst(t *testing.T) {
	m := newMeter(bpf.Terms{Packets: 100}, nil)
	one := make([]byte, 1)
	for m.admit(0, one, 1) == 1 {
	}
	m = newMeter(bpf.Terms{Packets: 1000}, m)
	if m.admit(0, one, 1) != 0 || m.admit(at(10*time.Millisecond), one, 1) != 1 {
		t.Error("the meter of new terms does not go on where the old one was")
	}
	m = newMeter(bpf.Terms{Bytes: 1}, m)
	if m.admit(0, one, 1) != 1 {
		t.Error("packets are still counted after their rate is gone")
	}
	if newMeter(bpf.Terms{Lifetime: time.Hour}, m) != nil {
		t.Error("a meter without a rate")
	}
}

func TestWhatExceedsTheRateIsDropped(t *testing.T) {
	now := time.Now()
	g := tunedRig(t, func(c *Config) {
		c.Packets = 10
		c.Now = func() time.Time { return now } // it stands still
	})
	m := g.session()
	a, b := m.both(0, m.at)
	for i := range 20 {
		a.send([]byte{byte(i)})
	}
	b.want([]byte{0})
	b.want([]byte{1}) // a burst of 100 ms at 10 a second
	g.awaitDrops(drop.RateLimit, 18)
	g.wantNothing(b.UDPConn)
	b.send([]byte("the other direction has its own rate"))
	a.want([]byte("the other direction has its own rate"))
	if got := g.cfg.Drops.Count(drop.RateLimit); got != 18 {
		t.Errorf("%d packets dropped, want 18", got)
	}

	// Of packets that the kernel has joined, the first ones go.
	n := g.session()
	a, b = n.both(0, n.at)
	if _, _, err := a.WriteMsgUDPAddrPort(noise(450), appendSegmentSize(nil, 100), a.relay); err != nil {
		t.Skipf("this kernel has no UDP_SEGMENT: %v", err)
	}
	b.want(noise(450)[:100])
	b.want(noise(450)[100:200])
	g.awaitDrops(drop.RateLimit, 21)
	g.wantNothing(b.UDPConn)

	// What is held for a leg counts as well when it is released.
	c := m.portal(0, 1, m.at)
	for i := range 5 {
		c.send([]byte{byte(i)})
	}
	g.await("all are held", func() bool { return g.held(m, 1, 0) == 5 })
	m.portal(1, 1, m.at)
	g.awaitDrops(drop.RateLimit, 24)
}
