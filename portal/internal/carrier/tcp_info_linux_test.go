package carrier_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// loseLarge has the kernel drop the segments that come to a socket and are
// longer than most, headers of TCP included, as a path does that has come to take
// smaller packets only and says nothing.
func loseLarge(t *testing.T, conn *net.TCPConn, most uint32) {
	t.Helper()
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: most, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 20},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, in := range prog {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}); err != nil || set != nil {
		t.Fatal(err, set)
	}
}

// stillness passes on what a Handler is told of silence.
type stillness struct {
	sink
	told chan bool
}

func (s *stillness) Silent(silent bool) { s.told <- silent }

// A carrier whose full segments are lost says so: the next connection then uses
// smaller ones. One that is whole does not, nor one on which nothing passes.
func TestSegmentsThatAreTooLargeAreKnown(t *testing.T) {
	for _, test := range []struct {
		name string
		most uint32 // longer segments are lost
		want bool
	}{{"full segments are lost", 1000, true}, {"all are lost", 0, false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			loseSegments(t, test.most, test.want)
		})
	}
}

func loseSegments(t *testing.T, most uint32, want bool) {
	a, b := carriertest.TCP(t)
	cc, sc := carriertest.TLS(t)
	client, server, err := carriertest.OverTCP(t.Context(), a, b, cc, sc, wire.SessionID{1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	client.SendHello(wire.TunnelHello{})
	server.SendHello(wire.TunnelHello{})
	h := &stillness{sink: make(sink, 1000), told: make(chan bool, 10)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { client.Run(ctx, h) })
	s := &one{Conn: server}
	s.run(ctx, &running)

	src := &script{frames: [][]byte{open(1), data(1, wire.MaxData)}}
	lane := client.Lane(1, src)
	lane.Ready()
	<-s.got
	<-s.got
	if stats := client.Stats(); stats.Packets == 0 || stats.Stuck {
		t.Errorf("while all is well: %+v", stats)
	}
	loseLarge(t, b, most)
	if most == 0 {
		loseLarge(t, a, 0)
	}
	running.Go(func() {
		// The peer hears nothing and asks, as it does while it is owed something.
		for every := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
				server.Measure(time.Now())
			}
		}
	})
	for range 10 {
		src.add(data(1, wire.MaxData))
	}
	lane.Ready()
	if silent := <-h.told; !silent {
		t.Fatal("told that the peer is heard")
	}
	for tries := 0; tries < 10 || client.Stats().Stuck != want && tries < 30; tries++ {
		<-time.After(100 * time.Millisecond)
	}
	stats := client.Stats()
	if stats.Stuck != want || stats.Lost == 0 {
		t.Errorf("want stuck %v: %+v", want, stats)
	}
	client.Abort(context.Canceled)
	if after := client.Stats(); after.Stuck != want || after.Lost < stats.Lost {
		t.Errorf("after the end: %+v", after)
	}
}
