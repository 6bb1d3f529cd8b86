package carriertest

import (
	"net"
	"sync"
	"time"
)

// piece is a part of a TCP connection's bytes, and when it arrives.
type piece struct {
	b  []byte
	at time.Time
}

// window is what a TCP connection lets be under way in one direction: ten segments at first, and as much more as has been
// acknowledged.
type window struct {
	mu    sync.Mutex
	grown sync.Cond
	most  int
	sent  int // and not acknowledged
	ended bool
}

// firstWindow is ten segments, as Linux begins.
const firstWindow = 10 * 1460

func newWindow() *window {
	w := &window{most: firstWindow}
	w.grown.L = &w.mu
	return w
}

// send waits until n bytes may be sent.
func (w *window) send(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.sent+n > w.most && !w.ended {
		w.grown.Wait()
	}
	w.sent += n
}

// acknowledged takes that n bytes have arrived.
func (w *window) acknowledged(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.most = w.sent-n, w.most+n
	w.grown.Broadcast()
}

func (w *window) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.grown.Broadcast()
}

// tcp returns the two ends of a connection over the network.
func (n *Network) tcp(running *sync.WaitGroup) (client, server net.Conn) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	for side, way := range []struct{ from, to net.Conn }{{near, far}, {far, near}} {
		under := make(chan piece, 64) // what may be under way, at most
		open := newWindow()
		running.Go(func() {
			defer close(under)
			for {
				b := make([]byte, 4<<10)
				m, err := way.from.Read(b)
				if err != nil {
					return
				}
				open.send(m)
				n.mu.Lock()
				at, _ := n.arrivalLocked(side, m)
				n.mu.Unlock()
				under <- piece{b[:m], at}
			}
		})
		running.Go(func() {
			defer way.to.Close()
			for p := range under {
				time.Sleep(time.Until(p.at)) // a timer that is due at once would have Go's race detector crash
				n.mu.Lock()
				for n.cut[side] {
					n.whole.Wait()
				}
				n.mu.Unlock()
				if _, err := way.to.Write(p.b); err != nil {
					break
				}
				time.AfterFunc(n.delay, func() { open.acknowledged(len(p.b)) })
			}
			open.end()
			way.from.Close()
			for range under {
				// Until the reader has seen the end.
			}
		})
	}
	return client, server
}
