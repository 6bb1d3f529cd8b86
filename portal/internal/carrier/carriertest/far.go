package carriertest

import (
	"net"
	"time"
)

// late is what is under way, and when it arrives.
type late struct {
	b  []byte
	at time.Time
}

// Far returns the ends of a connection with a delay each way, on which as many
// bytes as like may be under way. What is written still takes its delay after a
// close: a bubble has to outlast it.
func Far(delay time.Duration) (a, b net.Conn) {
	x, mid1 := net.Pipe()
	mid2, y := net.Pipe()
	for _, way := range []struct{ from, to net.Conn }{{mid1, mid2}, {mid2, mid1}} {
		under := make(chan late, 1<<16)
		go func() {
			defer close(under)
			for {
				b := make([]byte, 64<<10)
				n, err := way.from.Read(b)
				if err != nil {
					return
				}
				under <- late{b[:n], time.Now().Add(delay)}
			}
		}()
		go func() {
			defer way.to.Close()
			for l := range under {
				time.Sleep(time.Until(l.at))
				if _, err := way.to.Write(l.b); err != nil {
					break
				}
			}
			way.from.Close()
			for range under {
				// Until the reader has seen the end.
			}
		}()
	}
	return x, y
}
