// Package meter measures what a network does to data, from both ends of a connection that the test owns.
//
// Stream is a checked byte stream over any net.Conn: it tells lost, duplicated, reordered and corrupted bytes and the
// longest stall. Datagrams are numbered and signed, over any packet connection. Silence counts what reaches a socket
// that nothing should reach.
//
// # The stream's format
//
//	block = magic [4] | offset uint64 | length uint32 | payload [length] | CRC32C uint32 of all before
//	end   = the same with a magic of its own; offset is the stream's length, payload its SHA-256
//
// Numbers are big endian. Payloads are random, offset counts payload bytes, so that each byte has a place in the stream
// and a receiver that has lost its place finds the next block by its magic.
package meter

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

const (
	blockMagic    = "\x8fNPb"
	endMagic      = "\x8fNPe"
	blockHeader   = 4 + 8 + 4
	blockTrailer  = 4
	maxBlock      = 1 << 20 // bytes of payload
	defaultBlock  = 16 << 10
	readBufferLen = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Stream says what is sent. Both ends of a connection may send at once, each its own.
type Stream struct {
	Bytes int64 // of payload; 0 sends until the context ends
	Rate  int64 // bits of payload per second; 0 is as fast as the connection takes them
	Block int   // bytes of payload in a block, 1 MiB at most; 0 is 16 KiB
	Seed  uint64
}

// Send writes the stream to w. When ctx ends it writes no further block but the stream's end, so that the receiver
// knows what it should have got. It returns the payload bytes written; a write that blocks is ended by closing w.
func (s Stream) Send(ctx context.Context, w io.Writer) (int64, error) {
	size := s.Block
	if size == 0 {
		size = defaultBlock
	}
	if size < 0 || size > maxBlock {
		return 0, fmt.Errorf("send stream: blocks of %d bytes, want 1 to %d", size, maxBlock)
	}
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], s.Seed)
	random := rand.NewChaCha8(seed)
	sum := sha256.New()
	start := time.Now()
	payload := make([]byte, size)
	var block []byte
	var sent int64
	for ctx.Err() == nil && (s.Bytes == 0 || sent < s.Bytes) {
		if s.Bytes > 0 {
			payload = payload[:min(int64(size), s.Bytes-sent)]
		}
		random.Read(payload)
		sum.Write(payload)
		block = appendBlock(block[:0], blockMagic, sent, payload)
		if _, err := w.Write(block); err != nil {
			return sent, fmt.Errorf("send stream at byte %d: %w", sent, err)
		}
		sent += int64(len(payload))
		s.pace(ctx, start, sent)
	}
	if _, err := w.Write(appendBlock(block[:0], endMagic, sent, sum.Sum(nil))); err != nil {
		return sent, fmt.Errorf("send end of stream: %w", err)
	}
	return sent, nil
}

// pace waits until the rate allows more than sent bytes.
func (s Stream) pace(ctx context.Context, start time.Time, sent int64) {
	if s.Rate == 0 {
		return
	}
	due := start.Add(time.Duration(float64(sent) * 8 / float64(s.Rate) * float64(time.Second)))
	wait(ctx, time.Until(due))
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func appendBlock(b []byte, magic string, offset int64, payload []byte) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Both sends the stream on conn and at once receives the one that the other end sends, until both have ended. It
// half-closes conn after its own stream; on a connection that cannot be half-closed the other's end block ends the
// reception. A connection that stalls for ever is ended by a deadline on conn. Errors of sending are in the
// report, too.
func (s Stream) Both(ctx context.Context, conn net.Conn) StreamReport {
	half, canHalfClose := conn.(interface{ CloseWrite() error })
	sent := make(chan error, 1)
	go func() {
		_, err := s.Send(ctx, conn)
		if canHalfClose {
			err = errors.Join(err, half.CloseWrite())
		}
		sent <- err
	}()
	report := receive(conn, !canHalfClose)
	report.Err = errors.Join(report.Err, <-sent)
	return report
}

// Exchange runs Both on both ends of a connection and returns what arrived at b and what arrived at a.
func (s Stream) Exchange(ctx context.Context, a, b net.Conn) (atB, atA StreamReport) {
	done := make(chan StreamReport)
	go func() { done <- s.Both(ctx, a) }()
	atB = s.Both(ctx, b)
	return atB, <-done
}
