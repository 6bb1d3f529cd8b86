package splice

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/record"
)

// conn is a proven leg's connection: bare, or inside TLS.
type conn struct {
	tcp    *net.TCPConn
	tls    *record.Conn // nil: bare
	raw    *peeked      // under tls
	remote netip.AddrPort

	reviews uint64 // Relay.reviews before the handshake
}

// Read reads payload. TLS that ends without its close_notify was cut short:
// crypto/tls lets that pass for an end, and this does not.
func (c *conn) Read(b []byte) (int, error) {
	if c.tls == nil {
		return c.tcp.Read(b)
	}
	n, err := c.tls.Read(b)
	if err == io.EOF && c.raw.ended {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// stream is where the leg's payload is written.
func (c *conn) stream() net.Conn {
	if c.tls != nil {
		return c.tls
	}
	return c.tcp
}

// closeWrite carries the other leg's clean end through.
func (c *conn) closeWrite() error {
	if c.tls != nil {
		return c.tls.CloseWrite()
	}
	return c.tcp.CloseWrite()
}

// reset ends the connection with RST, so that what was cut short is not taken
// for a clean end.
func (c *conn) reset() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

// pair is two joined legs.
//
//	both ways --one leg ends--> one way --the other ends--> closed
//	    |                          |
//	    +---- error or abort ------+------------------------> reset, both
type pair struct {
	legs       [2]*conn
	connection uint16
	joined     time.Time
	pipes      *pipes

	moved [2]atomic.Uint64 // bytes, by the leg that sent them
	total *[2]atomic.Uint64
	ends  atomic.Int32 // legs that have ended cleanly

	// Guarded by Relay.mu.
	seen    uint64
	since   time.Time
	doubted [2]time.Time // when a leg was asked whether it lives; zero: it was not, or that is over
}

// keepAlive is how the kernel asks whether a leg lives that carries nothing: far
// apart, since an idle portal pays for it. A doubt is over soon.
var (
	keepAlive = net.KeepAliveConfig{Enable: true, Idle: 4 * time.Minute, Interval: 15 * time.Second, Count: 4}
	inDoubt   = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}
)

// doubtTime is how long a leg is in doubt.
const doubtTime = 5 * time.Second

// doubt has the kernel ask leg n at once whether it lives: its portal has dialled a
// meeting, so it may have left the address that this leg came from. If it does not
// answer the pair is reset, and the other portal learns of it: nothing else would
// tell, if that has nothing to say.
func (p *pair) doubt(n uint8, now time.Time) {
	p.doubted[n] = now
	_ = p.legs[n].tcp.SetKeepAliveConfig(inDoubt) // an error says that it is over
}

// settle ends the doubts that have lasted long enough.
func (p *pair) settle(now time.Time) {
	for n, at := range p.doubted {
		if !at.IsZero() && now.Sub(at) >= doubtTime {
			p.doubted[n] = time.Time{}
			_ = p.legs[n].tcp.SetKeepAliveConfig(keepAlive)
		}
	}
}

// run carries both directions and returns when both are over and the sockets
// are closed.
func (p *pair) run() {
	p.pipes.enter()
	defer p.pipes.leave()
	var other sync.WaitGroup
	other.Go(func() { p.carry(1) })
	p.carry(0)
	other.Wait()
}

// carry moves what leg n sends to the other leg, and its end after it.
func (p *pair) carry(n int) {
	from, to := p.legs[n], p.legs[1-n]
	moved := func(bytes int) {
		p.moved[n].Add(uint64(bytes))
		p.total[n].Add(uint64(bytes))
	}
	var err error
	if from.tls == nil && to.tls == nil {
		err = spliceAll(to.tcp, from.tcp, p.pipes, moved)
	} else {
		err = copyAll(to.stream(), from, moved)
	}
	if err == nil {
		err = to.closeWrite()
	}
	switch {
	case err != nil:
		p.abort()
	case p.ends.Add(1) == 2:
		p.legs[0].stream().Close()
		p.legs[1].stream().Close()
	case from.tls == nil && awaitReset(from.tcp):
		p.abort()
	}
}

// abort resets both legs. It may be called at any time, from any goroutine.
func (p *pair) abort() {
	p.legs[0].reset()
	p.legs[1].reset()
}
