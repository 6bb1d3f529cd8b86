package tunnel

import (
	"github.com/netport/netport/portal/internal/stream"
	"github.com/netport/netport/proto/wire"
)

// sourceBlocks is how many blocks a bulk stream's application is read into at
// once.
const sourceBlocks = 4

// source holds the blocks that an application's connection is read into. It
// has none while the application is silent, and is used by the goroutine that
// reads the application.
type source struct {
	room   int // how many bytes the stream takes
	turn   int // how many bytes it should send at once
	want   int // how many blocks the next read gets
	blocks [sourceBlocks]*stream.Block
	list   [sourceBlocks][]byte
	n      int // how many of both are in use
}

func newSource() *source { return &source{room: wire.FirstLimit, turn: wire.MaxData, want: 1} }

// Get implements rawio.Buffers.
func (s *source) Get() [][]byte {
	for room := s.room; s.n < s.want && room > 0; s.n++ {
		size := min(room, s.turn)
		room -= size
		b := stream.GetBlock()
		s.blocks[s.n] = b
		s.list[s.n] = b[wire.DataOverhead : wire.DataOverhead+size]
	}
	return s.list[:s.n]
}

// Put implements rawio.Buffers.
func (s *source) Put() {
	for i := range s.n {
		if s.blocks[i] != nil {
			stream.PutBlock(s.blocks[i])
		}
	}
	clear(s.blocks[:])
	clear(s.list[:])
	s.n = 0
}

// appendTo appends the n bytes that were read to st, and decides how much the
// next read may bring. It reports whether they seem to come from a bulk stream.
func (s *source) appendTo(st *stream.Stream, n int) (bulk bool) {
	bulk = n >= s.turn
	s.want = 1
	if n >= wire.MaxData {
		s.want = sourceBlocks
	}
	for i := 0; n > 0; i++ {
		m := min(n, len(s.list[i]))
		n -= m
		if st.Append(s.blocks[i], m) {
			s.blocks[i] = nil
		}
	}
	s.Put()
	return bulk
}
