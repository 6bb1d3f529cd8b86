package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	packetLen = 128 // payload of a packet in bytes, without what TURN puts before it
	markLen   = 16  // of it: tells a run's packets from all others
	batchLen  = 32  // packets that the receiver takes in a system call
	// burst is how many packets of a flow are sent at once. The kernel cuts them apart as late as it can, so that the
	// sender offers several times what any relay carries and leaves most of the processors to it and the receiver.
	burst = 16
)

// maxFlows is how many flows an experiment has at most.
const maxFlows = 100

// flows are UDP flows over a relay, from the client's machine to one socket on the service's. They stay until the end of
// the bench.
type flows struct {
	name    string // of the contender
	client  []flow
	service *net.UDPConn
}

// flow is the client's end.
type flow struct {
	conn   *net.UDPConn
	to     netip.AddrPort // of the relay
	header []byte         // that the relay wants before every payload
}

// packets returns how many packets per second reach the service over the first so many flows, sent in bursts.
func (w *world) packets(f flows, count int) ([]float64, error) {
	mark := make([]byte, markLen)
	rand.Read(mark)
	var sent, received atomic.Int64
	var failed error
	var both sync.WaitGroup
	stop := make(chan struct{})
	f.service.SetReadDeadline(time.Time{})
	both.Go(func() { receive(f.service, mark, &received) })
	both.Go(func() { failed = flood(f.client[:count], mark, &sent, stop) })

	<-time.After(warmUp)
	start, sentFirst, first := time.Now(), sent.Load(), received.Load()
	<-time.After(w.options.window)
	arrived, offered, took := received.Load()-first, sent.Load()-sentFirst, time.Since(start)

	close(stop)
	f.service.SetReadDeadline(time.Unix(1, 0))
	both.Wait()
	if failed == nil && arrived == 0 {
		failed = errors.New("no packet reaches the service")
	}
	if offered < 2*arrived {
		w.t.Logf("of %d packets %d arrived: the sender may be what was measured", offered, arrived)
	}
	return []float64{float64(arrived) / took.Seconds()}, failed
}

// receive counts the run's packets until its deadline.
func receive(conn *net.UDPConn, mark []byte, received *atomic.Int64) {
	batch := make([]ipv4.Message, batchLen)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, packetLen+1)}
	}
	batched := ipv4.NewPacketConn(conn)
	for {
		n, err := batched.ReadBatch(batch, 0)
		if err != nil {
			return
		}
		good := 0
		for _, m := range batch[:n] {
			if m.N == packetLen && bytes.HasPrefix(m.Buffers[0], mark) {
				good++
			}
		}
		received.Add(int64(good))
	}
}

// flood sends bursts over all flows in turn, as much as it can: the relay decides what arrives.
func flood(all []flow, mark []byte, sent *atomic.Int64, stop <-chan struct{}) error {
	payload := append(bytes.Clone(mark), make([]byte, packetLen-len(mark))...)
	var bursts [][]byte
	for _, f := range all {
		packet := append(bytes.Clone(f.header), payload...)
		if err := cutInto(f.conn, len(packet)); err != nil {
			return err
		}
		bursts = append(bursts, bytes.Repeat(packet, burst))
	}
	for i := 0; ; i = (i + 1) % len(all) {
		select {
		case <-stop:
			return nil
		default:
		}
		if _, err := all[i].conn.WriteToUDPAddrPort(bursts[i], all[i].to); err != nil {
			return err
		}
		sent.Add(burst)
	}
}

// cutInto makes the kernel cut what is written to the socket into packets of that size.
func cutInto(conn *net.UDPConn, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	return errors.Join(err, set)
}
