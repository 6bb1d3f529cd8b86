package tunnel

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// Streams take direct TCP, which carries more than QUIC, unless it is measured to go a longer way than that: what dials for
// TCP may go by a VPN where UDP finds the local network. What its own bytes add, where they fill the line, makes no way
// longer. Status says of the other why it is not taken.
func TestStreamsTakeDirectTCPUnlessItGoesALongerWay(t *testing.T) {
	for name, tt := range map[string]struct {
		tcp, quic time.Duration // one way
		rate      int           // of the line, in bytes a second; 0: no bound
		on        wire.CarrierKind
		why       string // the other is not taken
	}{
		"as long":                     {20 * time.Millisecond, 20 * time.Millisecond, 0, wire.CarrierTCP, "TCP carries more"},
		"shorter":                     {5 * time.Millisecond, 20 * time.Millisecond, 0, wire.CarrierTCP, "a round trip on another direct path is clearly shorter"},
		"longer":                      {40 * time.Millisecond, 5 * time.Millisecond, 0, wire.CarrierQUIC, "a round trip on another direct path is clearly shorter"},
		"as long, and full of itself": {20 * time.Millisecond, 20 * time.Millisecond, 250e3, wire.CarrierTCP, "TCP carries more"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				exit := make(calls, 1)
				p := newBarePair(t, exit, nil, alone)
				session := wire.SessionID{9}
				line := carriertest.NewNetwork(tt.quic, tt.rate)
				p.join(line, wire.CarrierQUIC, session, 0, theWay{direct: true})
				if tt.tcp != tt.quic {
					line = carriertest.NewNetwork(tt.tcp, tt.rate)
				}
				p.join(line, wire.CarrierTCP, session, 1, theWay{direct: true})
				app, other := net.Pipe()
				done := openWith(p.client, benchGrant, other)
				target := <-exit
				go io.Copy(io.Discard, target)
				go io.Copy(io.Discard, app)
				over := make(chan struct{})
				go func() {
					for b := make([]byte, 4<<10); ; {
						select {
						case <-over:
							app.Close()
							target.Close()
							return
						default:
							if app.Write(b); tt.rate == 0 {
								time.Sleep(20 * time.Millisecond)
							}
						}
					}
				}()
				time.Sleep(30 * time.Second)
				for _, tun := range []*Tunnel{p.client, p.server} {
					for _, c := range tun.Stats().Each {
						switch taken := c.Kind == tt.on; {
						case (c.Streams == 1) != taken:
							t.Errorf("%d streams on %v", c.Streams, c.Kind)
						case !taken && c.Why != tt.why, taken && c.Why != "":
							t.Errorf("%v: %q", c.Kind, c.Why)
						}
					}
				}
				close(over)
				<-done
				p.stopAndDrain()
			})
		})
	}
}
