package faults

import (
	"io"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// F28: one direction loses everything for a while, and the other does not. Nothing is lost, and soon after it is over
// everything runs again.
func TestOneDirectionThatLosesEverything(t *testing.T) {
	outage := 3 * time.Second
	if *full {
		outage = 10 * time.Second
	}
	const most = 2 * time.Second
	w := newNetwork(t)
	host := w.home.Host("laptop", topo.Uplink(link.Shape{}))
	w.laptop, w.factory = w.Portal(host), w.Portal(w.office.Host("factory"))
	w.allow(w.echoes()[0])
	p := w.connect(entryPort, w.plc.Listen(echoPort))
	for _, c := range []struct {
		name     string
		up, down link.Shape
	}{
		{"what the entry portal sends", link.Shape{Loss: 1}, link.Shape{}},
		{"what it is sent", link.Shape{}, link.Shape{Loss: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			host.Reshape(c.up, c.down)
			for _, conn := range []io.Writer{p.client, p.service} {
				if _, err := io.WriteString(conn, "anybody there?"); err != nil {
					t.Fatal(err)
				}
			}
			await.Passing(t, outage)
			host.Reshape(link.Shape{}, link.Shape{})
			start := time.Now()
			for _, conn := range []io.Reader{p.client, p.service} {
				b := make([]byte, len("anybody there?"))
				if _, err := io.ReadFull(conn, b); err != nil || string(b) != "anybody there?" {
					t.Fatalf("read %q, %v", b, err)
				}
			}
			p.alive(t)
			took := time.Since(start)
			t.Logf("runs again %v after %v", took, outage)
			if took > most {
				t.Errorf("it took %v until it ran again, want %v at most", took, most)
			}
		})
	}
}
