package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The client's application is this program, run in the client's namespace with the subcommand client: what it does, to
// which address, and a number or a time. It prints its figures as a JSON list.
const (
	doSend     = "send"     // writes to so many connections until it is killed; they go to each of a list of addresses in turn
	doPingPong = "pingpong" // measures for so long: 50th and 99th percentile of a byte's way there and back, in s
	doConnect  = "connect"  // measures for so long: connections made, used and closed, per second
)

func runClient(args []string) error {
	if len(args) != 3 {
		return errors.New("want what to do, an address, and how much")
	}
	addr := args[1]
	if args[0] == doSend {
		streams, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return sendAll(addr, streams)
	}
	window, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	time.AfterFunc(window+patience, func() {
		fmt.Fprintln(os.Stderr, "bench client: no answer for too long")
		os.Exit(1)
	})
	var figures []float64
	switch args[0] {
	case doPingPong:
		figures, err = pingPong(addr, window)
	case doConnect:
		figures, err = connections(addr, window)
	default:
		err = fmt.Errorf("there is no %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

// ask runs the client's application and returns its figures.
func (w *world) ask(what, addr string) ([]float64, error) {
	out, err := w.client.Command(w.self, "client", what, addr, w.options.window.String()).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%w: %s", err, exit.Stderr)
	} else if err != nil {
		return nil, err
	}
	var figures []float64
	return figures, json.Unmarshal(out, &figures)
}

// sendAll writes to several connections and returns if one breaks.
func sendAll(addr string, streams int) error {
	broken := make(chan error)
	addrs := strings.Split(addr, ",")
	for i := range streams {
		conn, err := net.Dial("tcp", addrs[i%len(addrs)])
		if err != nil {
			return err
		}
		go func() {
			for b := make([]byte, block); ; {
				if _, err := conn.Write(b); err != nil {
					broken <- err
					return
				}
			}
		}()
	}
	return <-broken
}

// untimed is how many exchanges come before the first that counts.
const untimed = 200

func pingPong(addr string, window time.Duration) ([]float64, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	plain, err := blocking(conn)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	b := make([]byte, 1)
	var took []float64
	var end time.Time
	for i := 0; ; i++ {
		start := time.Now()
		if i == untimed {
			end = start.Add(window)
		} else if i > untimed && start.After(end) {
			break
		}
		if _, err := plain.Write(b); err != nil {
			return nil, err
		}
		if _, err := plain.Read(b); err != nil {
			return nil, err
		}
		if i >= untimed {
			took = append(took, time.Since(start).Seconds())
		}
	}
	slices.Sort(took)
	return []float64{percentile(took, 0.5), percentile(took, 0.99)}, nil
}

// dialers is how many connections are made at a time.
const dialers = 8

func connections(addr string, window time.Duration) ([]float64, error) {
	if err := exchange(addr); err != nil { // a tunnel is warm before
		return nil, err
	}
	var made atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	start := time.Now()
	end := start.Add(window)
	for range dialers {
		all.Go(func() {
			for time.Now().Before(end) && failed.Load() == nil {
				if err := exchange(addr); err != nil {
					failed.Store(&err)
					return
				}
				made.Add(1)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return []float64{float64(made.Load()) / time.Since(start).Seconds()}, nil
}

// exchange makes a connection, sends four bytes, gets four and closes it.
func exchange(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := []byte("ping")
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("send four bytes: %w", err)
	}
	if _, err := io.ReadFull(conn, b); err != nil {
		return fmt.Errorf("get four bytes: %w", err)
	}
	return nil
}
