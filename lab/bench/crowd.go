package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/enrol"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/invite"
	"github.com/netport/netport/proto/wire"
)

// crowds are how many idle portals a server has when its memory is looked at.
var crowds = [2]int{1000, 5000}

// crowdExperiment measures what the server's memory grows by for each portal that is connected and has nothing to do: what
// it holds of its connection, TLS and all, and of its enrolment.
func crowdExperiment(w *world) (comparison, error) {
	measure := func() ([]float64, error) {
		crowd := w.lab.Public("crowd").Command(w.self, "crowd")
		tokens, in := io.Pipe()
		out, said := io.Pipe()
		crowd.Stdin, crowd.Stdout, crowd.Stderr = tokens, said, os.Stderr
		if err := crowd.Start(); err != nil {
			return nil, err
		}
		ended := make(chan error, 1)
		go func() {
			err := crowd.Wait()
			said.CloseWithError(errors.Join(errors.New("the crowd is gone"), err))
			tokens.Close()
			ended <- err
		}()
		var memory [2]resident
		connected := bufio.NewScanner(out)
		err := func() error {
			have := 0
			for i, many := range crowds {
				list := w.network.Invite("portal", "idle-%04d", "--count", fmt.Sprint(many-have), "--first", fmt.Sprint(have+1), "--ttl", "1d")
				if _, err := io.WriteString(in, strings.TrimSpace(list)+"\n"); err != nil {
					return err
				}
				for ; have < many; have++ {
					if !connected.Scan() {
						return connected.Err()
					}
				}
				var err error
				if memory[i], err = w.settledMemory(w.network.Server.Process().PID()); err != nil {
					return err
				}
			}
			return nil
		}()
		in.Close()
		if err = errors.Join(err, <-ended); err != nil {
			return nil, err
		}
		return []float64{float64(memory[1].whole-memory[0].whole) / float64(crowds[1]-crowds[0])}, nil
	}
	return comparison{rounds: 1, contenders: []contender{{netportName, measure}}, quantities: []quantity{
		{what: "server, an idle portal", unit: size, own: target{atMost: 24e3}},
	}}, nil
}

// joiners is how many of a crowd join at a time.
const joiners = 16

// runCrowd is many portals: one for each line of a name and a token that comes in. It writes the name of each that is
// connected, and ends when no more lines come. Nobody may be lost meanwhile.
func runCrowd(in io.Reader, out io.Writer) error {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	lines := make(chan string)
	var joining, connected sync.WaitGroup
	var mu sync.Mutex // guards the following, and the output
	var failed error
	left := false
	for range joiners {
		joining.Go(func() {
			for line := range lines {
				name, token, _ := strings.Cut(line, " ")
				conn, err := connectPortal(ctx, token)
				mu.Lock()
				if err == nil {
					_, err = fmt.Fprintln(out, name)
				}
				failed = errors.Join(failed, err)
				mu.Unlock()
				if conn == nil {
					continue
				}
				connected.Go(func() {
					err := conn.Run(ctx, func(wire.ToPortal) error { return nil })
					mu.Lock()
					defer mu.Unlock()
					if !left {
						failed = errors.Join(failed, fmt.Errorf("%s has lost its server: %w", name, err))
					}
				})
			}
		})
	}
	text := bufio.NewScanner(in)
	for text.Scan() {
		lines <- text.Text()
	}
	close(lines)
	joining.Wait()
	mu.Lock()
	left = true
	mu.Unlock()
	leave()
	connected.Wait()
	return errors.Join(failed, text.Err())
}

// connectPortal joins with a token and connects as the portal that this made.
func connectPortal(ctx context.Context, token string) (*control.Conn[wire.ToPortal, wire.FromPortal], error) {
	t, err := invite.Parse([]byte(token))
	if err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	client := enrol.Client{Software: "netport-bench", Now: time.Now}
	joined, err := client.Join(ctx, t, key)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	credentials, err := identity.NewCredentials(joined.Chain, key, joined.Roots, time.Now)
	if err != nil {
		return nil, err
	}
	dialer := control.Dialer[wire.ToPortal, wire.FromPortal]{
		Credentials: credentials, Software: client.Software, Parse: wire.ParseToPortal, Log: slog.New(slog.DiscardHandler),
	}
	conn, _, err := dialer.Dial(ctx, control.Addresses(joined.Servers)[0])
	return conn, err
}
