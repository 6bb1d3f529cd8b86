package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// signEvery is the pause between two signs of life.
	signEvery = 3 * time.Second
	// workTime is how long signs are given for a command that ought to be done by then: a
	// daemon that has a fault of its own keeps no caller longer.
	workTime = time.Minute
	// writeChunk is how much of a request has to pass within the patience of its caller.
	writeChunk = 64 << 10
)

// patience is how long a caller bears to hear nothing.
type patience struct {
	first time.Duration // before the first sign or byte of the answer, and while the request is sent
	later time.Duration // after it: a daemon that has begun may be held up by its machine
}

// Those who ask on this machine, and those who ask over a network, where a request may
// have to wait for others of the same caller.
var (
	here  = patience{first: 10 * time.Second, later: time.Minute}
	there = patience{first: 2 * time.Minute, later: time.Minute}
)

// ErrSilent is wrapped by Call, Stream and CallOver when the daemon is there and gives no
// sign of life. Whether it does what it was asked is not known.
var ErrSilent = errors.New("it has given no sign of life")

// giveSigns gives a caller signs of life, each within limit, until the function that it
// returns is called, or for so long at most.
func giveSigns(c net.Conn, limit, most time.Duration) (quiet func()) {
	stop := make(chan struct{})
	var giving sync.WaitGroup
	giving.Go(func() {
		end := time.NewTimer(most)
		defer end.Stop()
		tick := time.NewTicker(signEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if answer(c, limit, typeSign, nil) != nil {
					return
				}
			case <-end.C:
				return
			case <-stop:
				return
			}
		}
	})
	return func() {
		close(stop)
		giving.Wait()
	}
}

// patient is the connection of a caller who waits for each byte no longer than limit.
type patient struct {
	net.Conn
	ctx   context.Context // when it ends, so does every call
	limit time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.read(b, p.limit)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && p.ctx.Err() == nil {
		// A caller that was stopped itself (Ctrl-Z) finds here what has come meanwhile.
		n, err = p.read(b, p.limit/10)
	}
	return n, p.silent(err)
}

func (p *patient) read(b []byte, limit time.Duration) (int, error) {
	p.SetReadDeadline(time.Now().Add(limit))
	if err := p.ctx.Err(); err != nil { // its end may have set a deadline before this one
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p *patient) Write(b []byte) (written int, err error) {
	for len(b) > written && err == nil {
		p.SetWriteDeadline(time.Now().Add(p.limit))
		if err = p.ctx.Err(); err != nil {
			break
		}
		var n int
		n, err = p.Conn.Write(b[written:min(written+writeChunk, len(b))])
		written += n
	}
	return written, p.silent(err)
}

func (p *patient) silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && p.ctx.Err() == nil {
		return fmt.Errorf("%w for %v", ErrSilent, p.limit)
	}
	return err
}
