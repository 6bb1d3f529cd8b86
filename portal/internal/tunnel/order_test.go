package tunnel

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// began is what went on, in order.
type began struct {
	order order
	mu    sync.Mutex
	ids   []uint32
}

// start has id wait for its turn, and begin if it is to.
func (b *began) start(id uint32, begin bool) {
	go func() {
		b.order.wait(context.Background(), id)
		b.mu.Lock()
		b.ids = append(b.ids, id)
		b.mu.Unlock()
		if begin {
			b.order.begin(id)
		}
	}()
	synctest.Wait()
}

func (b *began) want(t *testing.T, ids ...uint32) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.ids, ids) {
		t.Errorf("%v began, want %v", b.ids, ids)
	}
}

func TestOpensBeginInTheirOrder(t *testing.T) {
	for _, first := range []uint32{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			var b began
			b.start(first+6, true)
			b.start(first+2, true)
			b.start(first+4, true)
			b.want(t)
			b.start(first, true)
			b.want(t, first, first+2, first+4, first+6)
			b.start(first+8, true)
			b.want(t, first, first+2, first+4, first+6, first+8)
			if len(b.order.waiting) != 0 {
				t.Errorf("%d still wait", len(b.order.waiting))
			}
		})
	}
}

func TestLateOpenHoldsNothingUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b began
		b.start(1, false) // is dialled for ever
		b.start(3, true)
		b.start(7, true) // 5 never comes
		b.want(t, 1)
		time.Sleep(orderTime)
		synctest.Wait()
		b.start(9, true)
		b.start(5, true) // it does, after all
		b.mu.Lock()
		slices.Sort(b.ids[:3]) // 3 and 7 were tired of waiting at the same time
		b.mu.Unlock()
		b.want(t, 1, 3, 7, 9, 5)
	})
}

// The goroutine that Go starts last runs first, so that streams whose opens are
// not ordered are opened the wrong way round most of the time. On a busy machine one may
// overtake another, but not before it has waited for orderTime.
func TestTargetsAreDialledInTheOrderOfTheStreams(t *testing.T) {
	const streams = 50
	type dial struct {
		stream uint16
		at     time.Time
	}
	dialled := make(chan dial, streams)
	p := newPair(t, handler(func(ctx context.Context, m wire.Open) (net.Conn, error) {
		dialled <- dial{m.Source.Port(), time.Now()}
		Begun(ctx)
		return nil, Refuse(wire.ReasonNotGranted, "")
	}), nil)
	var opening sync.WaitGroup
	var asked [streams]time.Time
	for i := range uint16(streams) {
		opened := make(chan struct{})
		ctx := WithBegun(t.Context(), func() { close(opened) })
		app, far := net.Pipe()
		defer far.Close()
		asked[i] = time.Now()
		opening.Go(func() {
			_, _ = p.client.OpenStream(ctx, benchGrant, []byte("grant"), netip.AddrPortFrom(netip.IPv4Unspecified(), i), app)
		})
		<-opened
	}
	opening.Wait()
	left := make(map[uint16]bool)
	for i := range uint16(streams) {
		left[i] = true
	}
	for range streams {
		d := <-dialled
		delete(left, d.stream)
		for earlier := range left {
			if waited := d.at.Sub(asked[d.stream]); earlier < d.stream && waited < orderTime {
				t.Fatalf("stream %d was dialled before stream %d, %v after it was asked for", d.stream, earlier, waited)
			}
		}
	}
}
