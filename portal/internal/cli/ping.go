package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/local"
)

// pingTime bounds one round trip; the first may have to open the tunnel.
const pingTime = 30 * time.Second

func ping() *cobra.Command {
	c := &cobra.Command{
		Use:   "ping PORTAL",
		Short: "Measure the round trip to another portal through the tunnel",
		Long: `Measure the round trip to another portal through the tunnel, opening it if there
is none. The other portal must share a forward with this one. Beside the path in use, the
others that the tunnel has are measured, too.`,
		Example: "  netport-portal ping factory-1\n  netport-portal ping factory-1 --count 100 --interval 100ms",
		Args:    command.Args("PORTAL"),
	}
	count := c.Flags().IntP("count", "c", 4, "how many round trips; 0: until interrupted")
	interval := c.Flags().Duration("interval", time.Second, "pause between two")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *count < 0 || *interval < 0 {
			return command.Usagef("--count and --interval cannot be negative")
		}
		return pings(c, args[0], *count, *interval)
	}
	return c
}

// beside tells of the paths that the tunnel has beside the one in use: of each the
// quickest of its carriers.
func beside(r daemon.PingResult) string {
	var names []string
	quickest := make(map[string]float64) // 0: no answer
	for _, w := range r.Ways {
		name := w.Path
		if w.Relay != "" {
			name += " " + w.Relay
		}
		if name == r.Path || strings.HasPrefix(r.Path, name+" at ") {
			continue
		}
		was, known := quickest[name]
		if !known {
			names = append(names, name)
		}
		if !known || was == 0 || w.RTT > 0 && w.RTT < was {
			quickest[name] = w.RTT
		}
	}
	text := ""
	for _, name := range names {
		rtt := "no answer"
		if t := quickest[name]; t > 0 {
			rtt = milliseconds(t)
		}
		text += fmt.Sprintf("; %s: %s", name, rtt)
	}
	return text
}

func pings(c *cobra.Command, portal string, count int, interval time.Duration) error {
	if _, err := load(c); err != nil {
		return err
	}
	out := c.OutOrStdout()
	sent, times := 0, []float64{}
	var last error
	for n := 1; c.Context().Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(c.Context(), pingTime)
		r, err := call[daemon.PingResult](ctx, c, daemon.CallPing, daemon.PingArgs{Portal: portal})
		cancel()
		if c.Context().Err() != nil {
			break
		}
		if errors.Is(err, local.ErrNoDaemon) {
			return err // the next one would find none either
		}
		sent++
		if err != nil {
			last = err
			fmt.Fprintf(out, "%d: %s\n", n, command.Clean(err.Error()))
		} else {
			times = append(times, r.RTT)
			fmt.Fprintf(out, "%d: %s from %s by %s%s\n", n, milliseconds(r.RTT), portal, command.Clean(r.Path), command.Clean(beside(r)))
		}
		if n == count {
			break
		}
		select {
		case <-time.After(interval):
		case <-c.Context().Done():
		}
	}
	if len(times) == 0 {
		if last == nil { // interrupted before the first
			return command.ErrShown
		}
		return last
	}
	low, sum, high := math.Inf(1), 0.0, 0.0
	for _, t := range times {
		low, sum, high = min(low, t), sum+t, max(high, t)
	}
	fmt.Fprintf(out, "%d sent, %d answered; min/avg/max %s/%s/%s\n", sent, len(times), milliseconds(low), milliseconds(sum/float64(len(times))), milliseconds(high))
	if len(times) < sent {
		return command.ErrShown
	}
	return nil
}
