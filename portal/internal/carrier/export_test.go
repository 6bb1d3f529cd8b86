package carrier

import "runtime"

// What the tests must know of the TCP carrier's writer.
const (
	SmallFrame   = smallFrame
	SmallData    = smallData
	ScratchLen   = scratchLen
	MaxDatagrams = maxDatagrams
)

// HoldWriter has nothing written on a TCP carrier until release is called, as if
// the socket took nothing.
func HoldWriter(c Conn) (release func()) {
	w := &c.(*tcpCarrier).writer
	w.mu.Lock()
	for w.busy { // with HELLO or a PING; it would let go of what is held here
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	w.busy = true
	w.mu.Unlock()
	return func() { w.wake <- struct{}{} }
}
