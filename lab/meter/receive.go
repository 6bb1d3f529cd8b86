package meter

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"
)

// StreamReport is what arrived of a stream. Bytes are of payload, but for Corrupted.
type StreamReport struct {
	Total        int64         // sent, as the end block says; -1 if that never came
	Received     int64         // distinct bytes that arrived whole
	Lost         int64         // that never arrived whole, as far as is known without the end block
	Duplicated   int64         // that arrived once more
	Reordered    int64         // that arrived behind later ones
	Corrupted    int64         // bytes on the wire that belong to no whole block
	SumEqual     bool          // the SHA-256 of all payload as it arrived is the sender's
	LongestStall time.Duration // without a byte, from the first to the end block
	Elapsed      time.Duration // from the first byte to the end block
	Err          error         // of reading (and in Both of sending), but for a clean end
}

// Check returns nil if the whole stream arrived, once, in order and unharmed, and else says what did not.
func (r StreamReport) Check() error {
	whole := r.Lost == 0 && r.Duplicated == 0 && r.Reordered == 0 && r.Corrupted == 0 && r.Total >= 0 && r.SumEqual
	if whole && r.Err == nil {
		return nil
	}
	return fmt.Errorf("checked stream: %v", r)
}

func (r StreamReport) String() string {
	text := fmt.Sprintf("received %d of %d bytes: lost %d, duplicated %d, reordered %d, corrupted %d, SHA-256 equal: %t, longest stall %v, in %v",
		r.Received, r.Total, r.Lost, r.Duplicated, r.Reordered, r.Corrupted, r.SumEqual, r.LongestStall, r.Elapsed)
	if r.Total < 0 {
		text += ", ended without its end block"
	}
	if r.Err != nil {
		text += ", error: " + r.Err.Error()
	}
	return text
}

// Receive reads a stream from r until its clean end (io.EOF) or an error, and reports what arrived.
func Receive(r io.Reader) StreamReport { return receive(r, false) }

// receive may also stop at the end block.
func receive(r io.Reader, stopAtEnd bool) StreamReport {
	c := receiver{report: StreamReport{Total: -1}, sum: sha256.New()}
	buffer := make([]byte, readBufferLen)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			c.arrived(time.Now())
			c.pending = append(c.pending, buffer[:n]...)
			c.parse(false)
		}
		if err != nil || stopAtEnd && c.report.Total >= 0 {
			c.arrived(time.Now())
			c.parse(true)
			if err != nil && !errors.Is(err, io.EOF) {
				c.report.Err = fmt.Errorf("receive stream: %w", err)
			}
			return c.finish()
		}
	}
}

// receiver takes a stream apart. One goroutine owns it.
type receiver struct {
	report  StreamReport
	sum     hash.Hash
	pending []byte // not yet understood
	next    int64  // the offset behind the highest byte that arrived
	gaps    []span // below next, in order
	first   time.Time
	last    time.Time // when bytes arrived last
}

// span is the bytes from (included) to (not included).
type span struct{ from, to int64 }

// arrived notes that bytes arrived, or that the stream ended. What comes behind the end block is no stall.
func (c *receiver) arrived(now time.Time) {
	if c.report.Total >= 0 {
		return
	}
	if c.first.IsZero() {
		c.first, c.last = now, now
	}
	c.report.LongestStall = max(c.report.LongestStall, now.Sub(c.last))
	c.last = now
}

// parse takes all whole blocks from pending. If no more bytes will come, what is left is corrupted.
func (c *receiver) parse(final bool) {
	b := c.pending
	for len(b) > 0 {
		magic, offset, payload, size, needMore := parseBlock(b)
		switch {
		case needMore && !final:
			c.pending = append(c.pending[:0], b...)
			return
		case size == 0:
			skip := nextMagic(b)
			c.report.Corrupted += int64(skip)
			b = b[skip:]
			continue
		case magic == endMagic:
			c.report.Total = offset
			c.report.SumEqual = bytes.Equal(payload, c.sum.Sum(nil))
		default:
			c.sum.Write(payload)
			c.place(span{offset, offset + int64(len(payload))})
		}
		b = b[size:]
	}
	c.pending = c.pending[:0]
}

// parseBlock reads the block at the start of b; size is 0 if there is none, or none yet.
func parseBlock(b []byte) (magic string, offset int64, payload []byte, size int, needMore bool) {
	if n := min(len(b), len(blockMagic)); string(b[:n]) != blockMagic[:n] && string(b[:n]) != endMagic[:n] {
		return "", 0, nil, 0, false
	}
	if len(b) < blockHeader {
		return "", 0, nil, 0, true
	}
	position, length := binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint32(b[12:])
	if length > maxBlock || position > 1<<62 {
		return "", 0, nil, 0, false
	}
	size = blockHeader + int(length) + blockTrailer
	if len(b) < size {
		return "", 0, nil, 0, true
	}
	body := b[:size-blockTrailer]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[size-blockTrailer:]) {
		return "", 0, nil, 0, false
	}
	return string(b[:4]), int64(position), body[blockHeader:], size, false
}

// nextMagic is how many bytes lie before the next place, behind the first byte, where a block may start.
func nextMagic(b []byte) int {
	if i := bytes.IndexByte(b[1:], blockMagic[0]); i >= 0 {
		return 1 + i
	}
	return len(b)
}

// place accounts for payload bytes that arrived whole.
func (c *receiver) place(s span) {
	if s.from > c.next {
		c.gaps = append(c.gaps, span{c.next, s.from})
	}
	if s.to > c.next {
		fresh := s.to - max(s.from, c.next)
		c.report.Received += fresh
		s.to -= fresh
		c.next = s.to + fresh
	}
	if s.from >= s.to {
		return
	}
	late := c.fill(s)
	c.report.Received += late
	c.report.Reordered += late
	c.report.Duplicated += s.to - s.from - late
}

// fill takes s out of the gaps and returns how many bytes that were.
func (c *receiver) fill(s span) int64 {
	var filled int64
	var left []span
	for _, gap := range c.gaps {
		from, to := max(gap.from, s.from), min(gap.to, s.to)
		if from >= to {
			left = append(left, gap)
			continue
		}
		filled += to - from
		for _, rest := range []span{{gap.from, from}, {to, gap.to}} {
			if rest.from < rest.to {
				left = append(left, rest)
			}
		}
	}
	c.gaps = left
	return filled
}

func (c *receiver) finish() StreamReport {
	for _, gap := range c.gaps {
		c.report.Lost += gap.to - gap.from
	}
	c.report.Lost += max(0, c.report.Total-c.next)
	c.report.Elapsed = c.last.Sub(c.first)
	return c.report
}
