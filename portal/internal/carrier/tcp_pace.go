package carrier

import (
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// slowFlush is when a write has waited for the socket, rather than for a
	// processor.
	slowFlush = 2 * time.Millisecond
	// turnTime is how long one turn of a bulk stream may hold up the others
	// on a slow path.
	turnTime = 4 * time.Millisecond
	minTurn  = 4 << 10
	// batchTurns is how many full turns go to the socket in one system call.
	batchTurns = 4
	// unsentTurns is how many turns the kernel may hold that it cannot send
	// yet: below that it would run dry between two writes.
	unsentTurns = 2
)

// pace fits the turns of bulk streams to what the path takes. On a fast path
// few large system calls are cheap; on a slow one whatever is written at once
// is a queue that every other stream waits behind.
type pace struct {
	turn   atomic.Int32
	unsent int // turn that the socket was last told of; the writer's own
}

// Turn implements Conn.
func (c *tcpCarrier) Turn() int { return int(c.writer.pace.turn.Load()) }

func (p *pace) init() { p.turn.Store(wire.MaxData) }

// flushed tells how long the socket took for n bytes.
func (p *pace) flushed(n int, took time.Duration) {
	old := int64(p.turn.Load())
	turn := old * 2
	switch {
	case n < minTurn || took <= slowFlush && int64(n) < old:
		return // so little says nothing
	case took > slowFlush:
		turn = int64(n) * int64(turnTime) / int64(took)
	}
	if turn = min(max(turn, minTurn), wire.MaxData); turn != old {
		p.turn.Store(int32(turn))
	}
}

// tellSocket has the kernel keep less, or more, of what it cannot send.
func (c *tcpCarrier) tellSocket() {
	p := &c.writer.pace
	turn := c.Turn()
	if turn == p.unsent || turn != wire.MaxData && turn > p.unsent/2 && turn < p.unsent*2 {
		return
	}
	p.unsent = turn
	limitUnsent(c.raw, max(unsentTurns*turn, 16<<10))
}
