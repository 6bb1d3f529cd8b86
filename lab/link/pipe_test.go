package link

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const testSeed = 20261122

// arrival is a numbered frame that came out of a pipe.
type arrival struct {
	number int
	after  time.Duration // since it went in
	bits   int           // flipped
}

// send puts count frames of size bytes into a pipe of that shape, one each interval, and returns what comes out, in
// order, and the counters. Time is simulated.
func send(t *testing.T, shape Shape, count, size int, interval time.Duration) ([]arrival, Counters) {
	t.Helper()
	shape, err := shape.check()
	if err != nil {
		t.Fatal(err)
	}
	p := pipe{shape: shape, dice: rand.New(rand.NewPCG(testSeed, 0)), buffers: &buffers{size: size}}
	start := time.Now()
	var out []arrival
	take := func(now time.Time) {
		for {
			due, waiting := p.next()
			data, ok := p.pop(now)
			if !ok {
				return
			}
			if !waiting {
				t.Fatal("a frame came out that was not announced")
			}
			number := int(binary.BigEndian.Uint32(data)) // in the Ethernet header, which is never corrupted
			a := arrival{number: number, after: due.Sub(start.Add(time.Duration(number) * interval))}
			for _, b := range data[4:] {
				for ; b != 0; b &= b - 1 {
					a.bits++
				}
			}
			out = append(out, a)
			p.buffers.recycle(data)
		}
	}
	for i := range count {
		now := start.Add(time.Duration(i) * interval)
		take(now)
		data := p.buffers.get()[:size]
		clear(data)
		binary.BigEndian.PutUint32(data, uint32(i))
		p.accept(now, data)
	}
	take(start.Add(24 * time.Hour))
	if p.held != 0 {
		t.Errorf("the empty pipe holds %d bytes", p.held)
	}
	return out, p.counters
}

// near fails unless got lies within four standard deviations of what dice with that share give.
func near(t *testing.T, what string, got, of int, share float64) {
	t.Helper()
	want, deviation := float64(of)*share, math.Sqrt(float64(of)*share*(1-share))
	if math.Abs(float64(got)-want) > 4*deviation {
		t.Errorf("%s: %d of %d, want %.0f +- %.0f (seed %d)", what, got, of, want, 4*deviation, testSeed)
	}
}

func TestZeroShapePassesEverythingAtOnce(t *testing.T) {
	got, counters := send(t, Shape{}, 1000, 100, 0)
	for i, a := range got {
		if a != (arrival{number: i}) {
			t.Fatalf("arrival %d is %+v", i, a)
		}
	}
	if want := (Counters{Accepted: 1000}); counters != want || len(got) != 1000 {
		t.Errorf("%d arrived, counters %v", len(got), counters)
	}
}

func TestDelayAndJitterLieWhereTheyWereAsked(t *testing.T) {
	got, _ := send(t, Shape{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond}, 10000, 100, 20*time.Millisecond)
	var longest, sum time.Duration
	shortest := time.Hour
	for _, a := range got {
		shortest, longest, sum = min(shortest, a.after), max(longest, a.after), sum+a.after
	}
	if shortest < 50*time.Millisecond || shortest > 51*time.Millisecond || longest < 69*time.Millisecond || longest > 70*time.Millisecond {
		t.Errorf("delays from %v to %v, want 50ms to 70ms", shortest, longest)
	}
	if mean := sum / 10000; (mean - 60*time.Millisecond).Abs() > time.Millisecond {
		t.Errorf("mean delay %v, want 60ms", mean)
	}
}

func TestJitterKeepsOrder(t *testing.T) {
	got, _ := send(t, Shape{Jitter: 20 * time.Millisecond}, 10000, 100, time.Millisecond)
	for i, a := range got {
		if a.number != i {
			t.Fatalf("frame %d arrived in place %d", a.number, i)
		}
	}
}

func TestSharesAreWhatWasAsked(t *testing.T) {
	const count = 100000
	for _, tt := range []struct {
		name  string
		shape Shape
		got   func([]arrival, Counters) int
	}{
		{"Loss", Shape{Loss: 0.1}, func(a []arrival, c Counters) int { return count - len(a) }},
		{"Duplicate", Shape{Duplicate: 0.1}, func(a []arrival, c Counters) int { return len(a) - count }},
		{"Corrupt", Shape{Corrupt: 0.1}, func(a []arrival, c Counters) (n int) {
			for _, a := range a {
				if a.bits > 1 {
					return -count
				}
				n += a.bits
			}
			return n
		}},
		{"Reorder", Shape{Reorder: 0.1}, func(a []arrival, c Counters) (n int) {
			highest := -1
			for _, a := range a {
				if a.number < highest {
					n++
				}
				highest = max(highest, a.number)
			}
			return n
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, counters := send(t, tt.shape, count, 64, time.Millisecond)
			near(t, tt.name, tt.got(got, counters), count, 0.1)
			counted := counters.Lost + counters.Duplicated + counters.Corrupted + counters.HeldBack
			near(t, "counters", int(counted), count, 0.1)
		})
	}
}

func TestHeldBackFramesAreOvertakenByTheirDelay(t *testing.T) {
	got, _ := send(t, Shape{Delay: time.Second, Reorder: 0.01, ReorderBy: 50 * time.Millisecond}, 10000, 64, time.Millisecond)
	for _, a := range got {
		if a.after != time.Second && a.after != 1050*time.Millisecond {
			t.Fatalf("frame %d took %v", a.number, a.after)
		}
	}
}

func TestBurstsHaveTheirLengthAndShare(t *testing.T) {
	const count = 200000
	// Bad for 8 frames of 200 in the mean; all frames of a burst are lost.
	got, counters := send(t, Shape{Burst: GilbertElliott{ToBad: 1. / 192, ToGood: 1. / 8, LossBad: 1}}, count, 64, 0)
	lost, bursts, expected := 0, 0, 0
	for _, a := range got {
		if a.number > expected {
			bursts++
			lost += a.number - expected
		}
		expected = a.number + 1
	}
	if share := float64(lost) / count; share < 0.035 || share > 0.045 {
		t.Errorf("lost %.4f, want 0.04 (seed %d)", share, testSeed)
	}
	if length := float64(lost) / float64(bursts); length < 7 || length > 9 {
		t.Errorf("mean burst of %.2f frames, want 8 (seed %d)", length, testSeed)
	}
	if int(counters.Lost) != count-len(got) {
		t.Errorf("counted %d lost, %d did not arrive", counters.Lost, count-len(got))
	}
}

func TestRateSpacesFramesAndItsQueueOverflows(t *testing.T) {
	// 1,000 frames of 1,250 bytes at once into 1 Mbit/s: 10 ms each, and room for 50 besides the one being sent.
	got, counters := send(t, Shape{Rate: 1e6, Queue: 50 * 1250}, 1000, 1250, 0)
	if len(got) != 50 || counters.Overflowed != 950 {
		t.Errorf("%d arrived, %d overflowed, want 50 and 950", len(got), counters.Overflowed)
	}
	for i, a := range got {
		if want := time.Duration(i+1) * 10 * time.Millisecond; (a.after - want).Abs() > time.Microsecond {
			t.Fatalf("arrival %d after %v, want %v", i, a.after, want)
		}
	}
}

func TestRateBelowCapacityAddsNoDelay(t *testing.T) {
	got, counters := send(t, Shape{Rate: 1e6}, 1000, 1250, 11*time.Millisecond)
	for _, a := range got {
		if (a.after - 10*time.Millisecond).Abs() > time.Microsecond {
			t.Fatalf("frame %d took %v, want 10ms", a.number, a.after)
		}
	}
	if len(got) != 1000 {
		t.Errorf("%d arrived, %v", len(got), counters)
	}
}

func TestSameSeedSameDice(t *testing.T) {
	shape := Shape{Jitter: time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.1}
	one, _ := send(t, shape, 1000, 64, time.Millisecond)
	two, _ := send(t, shape, 1000, 64, time.Millisecond)
	if len(one) != len(two) {
		t.Fatalf("%d and %d arrived", len(one), len(two))
	}
	for i := range one {
		if one[i].number != two[i].number || one[i].bits != two[i].bits {
			t.Fatalf("arrival %d is %+v and %+v", i, one[i], two[i])
		}
	}
}

func TestShapesThatMakeNoSenseAreRefused(t *testing.T) {
	for _, s := range []Shape{
		{Loss: 10}, {Loss: -0.1}, {Duplicate: math.NaN()}, {Burst: GilbertElliott{ToBad: 2}},
		{Delay: -1}, {Jitter: -1}, {Rate: -1}, {Queue: -1}, {ReorderBy: -1},
	} {
		if _, err := s.check(); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}
