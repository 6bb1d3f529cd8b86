package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
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

// resting is for how long nothing happens before: Go's runtime collects what is garbage every 2 minutes then, and what it
// has given back after the second time is most of what it will.
const resting = 5 * time.Minute

// crowdExperiment measures what a server's memory grows by for each portal that is connected and has nothing to do: what
// it holds of its connection, TLS and all, and of its enrolment. Beside it stands what crypto/tls alone takes.
func crowdExperiment(w *world) (comparison, error) {
	dir, err := w.issueTo("floor")
	if err != nil {
		return comparison{}, err
	}
	address := netip.AddrPortFrom(w.relay.Addr(), floorPort).String()
	floor := w.relay.Start(w.relay.Command(w.self, "floor", dir, address))
	floor.WaitLog(floorReady)
	both := []*crowd{
		{name: netportName, prefix: "idle", pid: w.network.Server.Process().PID()},
		{name: floorName, prefix: "bare", pid: floor.PID(), address: address},
	}
	many, rest := crowds, resting
	if w.options.quick {
		many, rest = [2]int{crowds[0] / 5, crowds[1] / 5}, resting/10
	}
	grow := sync.OnceValue(func() error { return w.growCrowds(both, many, rest) })
	c := comparison{rounds: 1, quantities: []quantity{{what: "server, an idle portal", unit: size, own: target{atMost: 24e3}}}}
	for _, crowd := range both {
		c.contenders = append(c.contenders, contender{crowd.name, func() ([]float64, error) {
			err := grow()
			return []float64{float64(crowd.memory[1]-crowd.memory[0]) / float64(many[1]-many[0])}, err
		}})
	}
	return c, nil
}

// growCrowds has crowds grow, and looks at the memory of their servers each time they have been idle.
func (w *world) growCrowds(both []*crowd, many [2]int, rest time.Duration) (err error) {
	for _, c := range both {
		if err := w.startCrowd(c); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.end()) }()
	}
	for i, n := range many {
		for _, c := range both {
			if err := w.growCrowd(c, n); err != nil {
				return err
			}
		}
		<-time.After(rest)
		for _, c := range both {
			now, err := memoryOf(c.pid)
			if err != nil {
				return err
			}
			c.memory[i] = now.whole
		}
	}
	return nil
}

// crowd is many portals of one server, played by one process.
type crowd struct {
	name    string // the server's
	prefix  string // of the portals' names
	pid     int    // the server's
	address string // of a server that is none of Netport's; else empty
	memory  [2]int64

	have  int            // portals
	lines io.WriteCloser // for runCrowd
	said  *bufio.Scanner // what that writes
	ended chan error
}

func (w *world) startCrowd(c *crowd) error {
	tokens, lines := io.Pipe()
	out, said := io.Pipe()
	cmd := w.lab.Public(c.prefix).Command(w.self, "crowd", c.address)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tokens, said, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	c.lines, c.said, c.ended = lines, bufio.NewScanner(out), make(chan error, 1)
	go func() {
		err := cmd.Wait()
		said.CloseWithError(errors.Join(errors.New("the crowd is gone"), err))
		tokens.Close()
		c.ended <- err
	}()
	return nil
}

// growCrowd has so many portals join and connect.
func (w *world) growCrowd(c *crowd, many int) error {
	list := w.network.Invite("portal", c.prefix+"-%04d", "--count", fmt.Sprint(many-c.have), "--first", fmt.Sprint(c.have+1), "--ttl", "1d")
	if _, err := io.WriteString(c.lines, strings.TrimSpace(list)+"\n"); err != nil {
		return err
	}
	for ; c.have < many; c.have++ {
		if !c.said.Scan() {
			return c.said.Err()
		}
		if name, why, failed := strings.Cut(c.said.Text(), " "); failed {
			return fmt.Errorf("portal %s: %s", name, why)
		}
	}
	return nil
}

// end has all portals leave. It returns what the crowd has had to say of them meanwhile.
func (c *crowd) end() error {
	c.lines.Close()
	var lost error
	for c.said.Scan() {
		lost = errors.Join(lost, errors.New(c.said.Text()))
	}
	return errors.Join(lost, <-c.ended)
}

// joiners is how many of a crowd join at a time.
const joiners = 16

// runCrowd is many portals: one for each line of a name and a token that comes in. It writes the name of each that is
// connected; and the name, and why, of one that could not connect or has lost its server. It ends when no more lines
// come. With an address they connect to that.
func runCrowd(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("want an address, which may be empty")
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var mu sync.Mutex // guards the output
	say := func(words ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(out, words...)
	}
	lines := make(chan string)
	var joining, connected sync.WaitGroup
	for range joiners {
		joining.Go(func() {
			for line := range lines {
				name, token, _ := strings.Cut(line, " ")
				stay, err := connectPortal(ctx, token, args[0])
				if err != nil {
					say(name, err)
					continue
				}
				say(name)
				connected.Go(func() {
					if err := stay(ctx); ctx.Err() == nil {
						say(name, "has lost its server:", err)
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
	leave()
	connected.Wait()
	return text.Err()
}

// connectPortal joins with a token and connects as the portal that this made, to its server or to an address. It
// returns what keeps the connection.
func connectPortal(ctx context.Context, token, address string) (stay func(context.Context) error, err error) {
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
	if address != "" {
		return connectFloor(ctx, credentials, address)
	}
	dialer := control.Dialer[wire.ToPortal, wire.FromPortal]{
		Credentials: credentials, Software: client.Software, Parse: wire.ParseToPortal, Log: slog.New(slog.DiscardHandler),
	}
	conn, _, err := dialer.Dial(ctx, control.Addresses(joined.Servers)[0])
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return conn.Run(ctx, func(wire.ToPortal) error { return nil }) }, nil
}
