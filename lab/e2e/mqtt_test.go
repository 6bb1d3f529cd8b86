package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
)

// A subscriber and a publisher, both connected to the broker through the tunnel.
func TestMQTT(t *testing.T) {
	need.Program(t, "mosquitto", "mosquitto_sub", "mosquitto_pub")
	w := newWorld(t)
	config := w.plc.WriteFile("mosquitto.conf", "listener 1883 0.0.0.0\nallow_anonymous true\nlog_dest stderr\nlog_type all\n")
	broker := w.plc.Start(w.plc.Command("mosquitto", "-c", config).As("nobody"))
	await.Listening(t, w.plc, "tcp", 1883)
	w.allow(t, w.offer("mqtt", "tcp", 1883, endpoint("tcp", w.plc.Addr(), 1883))...)

	w.each(t, func(t *testing.T, c client) {
		const messages = 200
		topic := "line/" + c.host.Name()
		at := []string{"-h", c.entry.String(), "-p", "1883", "-t", topic, "-q", "1"}
		subscriber := c.host.Start(c.host.Command("mosquitto_sub", append(at, "-C", fmt.Sprint(messages+1), "-i", "sub-"+c.host.Name())...))
		broker.WaitLog("Sending SUBACK to sub-" + c.host.Name())

		var sent strings.Builder
		for i := range messages {
			fmt.Fprintf(&sent, "message %d\n", i)
		}
		publish := c.host.Command("mosquitto_pub", append(at, "-l")...) // a message a line
		publish.Stdin = strings.NewReader(sent.String())
		await.Success(t, publish)
		large := strings.Repeat("large ", 50_000)
		publish = c.host.Command("mosquitto_pub", append(at, "-s")...) // one message
		publish.Stdin = strings.NewReader(large)
		await.Success(t, publish)

		await.End(t, subscriber)
		if got, want := subscriber.Log(), sent.String()+large+"\n"; got != want {
			t.Errorf("the subscriber got %d bytes that are not the %d that were published; they begin with %.100q", len(got), len(want), got)
		}
	})
}
