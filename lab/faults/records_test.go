package faults

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// T19: a portal with a valid certificate that sends its messages byte by byte, each in a TLS record of its own, is cut off
// or slowed down, and takes no more than its share of the server.
func TestTinyRecordsCostTheServerLittle(t *testing.T) {
	records := 100_000
	if *full {
		records *= 10
	}
	w := newWorld(t)
	w.allow(w.echoes()...)
	mallory, honest := w.lab.Public("mallory"), w.lab.Public("honest")
	credentials := w.identity(identity.Portal, "honest")
	i := w.join(mallory, w.identity(identity.Portal, "mallory"))
	traffic := w.startTraffic()
	before, start := cpuTime(t, w.Server.Daemon), time.Now()

	go func() { // what the server says is not listened to, but must not fill the socket
		for {
			if _, _, err := i.read(); err != nil {
				return
			}
		}
	}()
	// Of a type that is skipped, and as long as a message may be: few messages, and many records.
	message := binary.BigEndian.AppendUint16(nil, 0x7fff)
	message = binary.BigEndian.AppendUint32(message, wire.MaxControl)
	message = append(message, make([]byte, wire.MaxControl)...)
	sent := 0
	for sent < records {
		if _, err := i.conn.Write(message[sent%len(message):][:1]); err != nil {
			break
		}
		sent++
	}
	used, took := cpuTime(t, w.Server.Daemon)-before, time.Since(start)
	t.Logf("%d records were sent in %v and cost the server %v", sent, took, used)
	if sent == records && used > took/20 {
		t.Errorf("the server used %v of %v for one portal, and did not cut it off", used, took)
	}
	begun := time.Now()
	w.join(honest, credentials)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("an honest portal took %v", took)
	}
	traffic.end()
}
