package stream

import (
	"sync"

	"github.com/netport/netport/proto/wire"
)

// Block is a buffer that an application's bytes are read into, and what a
// queue of received bytes is made of. The first wire.DataOverhead bytes are
// left free, so that the header of a DATA frame can stand in front of the
// bytes where they are: from the application's socket to the TLS record
// nothing is copied. A full Block fills four TLS records.
type Block [wire.DataOverhead + wire.MaxData]byte

// copyBelow is up to how many bytes a segment gets memory of its own size, so
// that a stream of small writes does not hold a Block for each.
const copyBelow = 16 << 10

var blocks = sync.Pool{New: func() any { return new(Block) }}

// GetBlock returns a Block from the pool. It holds old bytes.
func GetBlock() *Block { return blocks.Get().(*Block) }

// PutBlock returns a Block to the pool.
func PutBlock(b *Block) { blocks.Put(b) }

// segment is a DATA frame to be: header room and bytes.
type segment struct {
	frame []byte
	block *Block // that frame is part of; nil if frame has memory of its own
	end   uint64 // offset after the last byte
}

// cost is how much memory the segment takes.
func (s *segment) cost() int {
	if s.block != nil {
		return len(s.block)
	}
	return len(s.frame) + 64
}

// start is the offset of the segment's first byte.
func (s *segment) start() uint64 { return s.end - uint64(len(s.frame)-wire.DataOverhead) }

func (s *segment) release() {
	if s.block != nil {
		PutBlock(s.block)
	}
	*s = segment{}
}
