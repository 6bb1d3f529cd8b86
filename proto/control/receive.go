package control

import (
	"bufio"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"
)

// buffers are what messages are received into; each holds the longest. A server has
// thousands of connections that have nothing to say: one has a buffer only while
// something comes.
var buffers = sync.Pool{New: func() any {
	return bufio.NewReaderSize(nil, wire.ControlHeaderLen+wire.MaxControl)
}}

// receiver takes messages from a connection, one at a time. It belongs to one goroutine.
type receiver struct {
	source countedReader
	b      *bufio.Reader // nil while nothing comes
	taken  int           // bytes at its beginning that next has returned
}

func newReceiver(c Channel) *receiver { return &receiver{source: countedReader{Channel: c}} }

// await waits until there is something for next. It belongs to the same goroutine, or to
// one that waits for it, and needs little stack.
func (r *receiver) await() error {
	if r.more() {
		return nil
	}
	if err := r.source.Await(); err != nil {
		return &brokenError{err}
	}
	return nil
}

// more gives up the message before and reports whether something behind it is here.
func (r *receiver) more() bool {
	if r.b == nil {
		return false
	}
	r.b.Discard(r.taken)
	r.taken = 0
	if r.b.Buffered() > 0 {
		return true
	}
	r.b.Reset(nil)
	buffers.Put(r.b)
	r.b = nil
	return false
}

// next returns one message. The body is valid until the next call. What follows
// the first byte must come within limit, if that is not 0.
func (r *receiver) next(limit time.Duration) (wire.Type, []byte, error) {
	if !r.more() {
		if err := r.await(); err != nil {
			return 0, nil, err
		}
		r.b = buffers.Get().(*bufio.Reader)
		r.b.Reset(&r.source)
	}
	if _, err := r.b.Peek(1); err != nil {
		return 0, nil, &brokenError{err}
	}
	if limit > 0 {
		r.source.SetReadDeadline(time.Now().Add(limit))
		defer r.source.SetReadDeadline(time.Time{})
	}
	header, err := r.b.Peek(wire.ControlHeaderLen)
	if err != nil {
		return 0, nil, cut(err, limit)
	}
	t, n, err := wire.ParseControlHeader(header)
	if err != nil {
		return 0, nil, err
	}
	message, err := r.b.Peek(wire.ControlHeaderLen + n)
	if err != nil {
		return 0, nil, cut(err, limit)
	}
	r.taken = len(message)
	return t, message[wire.ControlHeaderLen:], nil
}

// cut is the error of a message that has begun and does not end.
func cut(err error, limit time.Duration) error {
	switch {
	case limit > 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return errSlow
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return &brokenError{err}
}

// countedReader counts reads.
type countedReader struct {
	Channel
	count int
}

func (r *countedReader) Read(b []byte) (int, error) {
	r.count++
	return r.Channel.Read(b)
}
