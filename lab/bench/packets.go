package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	packetLen = 128 // payload of a packet in bytes, without what TURN puts before it
	markLen   = 16  // of it: tells a run's packets from all others
	batchLen  = 32  // packets in a system call
	// underWay is how many packets the sender lets be on their way at once: enough that no queue runs empty, and few
	// enough for all to fit into a socket's buffer, so that no work goes into packets that are then dropped.
	underWay = 192
	// lostAfter is the silence after which what is under way counts as lost.
	lostAfter = 2 * time.Millisecond
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
	to     *net.UDPAddr // of the relay
	header []byte       // that the relay wants before every payload
}

// packets returns how many packets per second reach the service over the first so many flows.
func (w *world) packets(f flows, count int) ([]float64, error) {
	mark := make([]byte, markLen)
	rand.Read(mark)
	var received atomic.Int64
	var both sync.WaitGroup
	stop := make(chan struct{})
	f.service.SetReadDeadline(time.Time{})
	both.Go(func() { receive(f.service, mark, &received) })
	both.Go(func() { flood(f.client[:count], mark, &received, stop) })

	<-time.After(warmUp)
	start, first := time.Now(), received.Load()
	<-time.After(w.options.window)
	arrived, took := received.Load()-first, time.Since(start)

	close(stop)
	f.service.SetReadDeadline(time.Unix(1, 0))
	both.Wait()
	if arrived == 0 {
		return nil, errors.New("no packet reaches the service")
	}
	return []float64{float64(arrived) / took.Seconds()}, nil
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

// flood sends over all flows in turn, as fast as packets are received.
func flood(all []flow, mark []byte, received *atomic.Int64, stop <-chan struct{}) {
	payload := make([]byte, packetLen)
	copy(payload, mark)
	var conns []*ipv4.PacketConn
	var batches [][]ipv4.Message
	for _, f := range all {
		packet := append(bytes.Clone(f.header), payload...)
		batch := make([]ipv4.Message, batchLen)
		for i := range batch {
			batch[i] = ipv4.Message{Buffers: [][]byte{packet}, Addr: f.to}
		}
		conns, batches = append(conns, ipv4.NewPacketConn(f.conn)), append(batches, batch)
	}
	each := max(1, min(batchLen, underWay/2/len(all))) // many flows: a few packets of each at a time
	sent, seen, moved := int64(0), int64(0), time.Now()
	for i := 0; ; {
		select {
		case <-stop:
			return
		default:
		}
		now := received.Load()
		if now != seen {
			seen, moved = now, time.Now()
		}
		if sent-seen+int64(each) > underWay {
			if time.Since(moved) > lostAfter {
				sent = seen
			}
			continue
		}
		n, err := conns[i].WriteBatch(batches[i][:each], 0)
		if err != nil {
			return // the relay's machine refuses it
		}
		sent += int64(n)
		i = (i + 1) % len(all)
	}
}
