//go:build !unix

package rawio

import "net"

// ready is empty: no connection here can be waited for without a buffer.
type ready struct{}

func (r *Reader) init() {}

// Read reads once into the first buffer, which it holds while it waits.
func (r *Reader) Read() (int, error) { return r.readHolding() }

// TryRead reads nothing: there is no way to read without waiting here.
func (r *Reader) TryRead() (int, error) { return 0, nil }

// Writer does not exist here.
type Writer struct{}

// NewWriter returns nil: no connection can be written without waiting here.
func NewWriter(net.Conn) *Writer { return nil }

// TryWrite writes nothing.
func (w *Writer) TryWrite(b []byte) (int, error) { return 0, nil }
