// Command bench measures Netport beside what people use today, in network namespaces, as root. It prints one table and
// writes every figure as JSON into the folder bench. make bench runs it.
//
//	client --- NAT a ---+-- internet --+--- NAT b --- service
//	            server -+              +- relay
//
// The client's application runs on the entry portal's machine, the service on the exit portal's, and both are this
// program (see client.go and services.go), the same for every contender. Contenders take turns, round by round, and what
// counts is the ratio within a round: machines are noisy, and an absolute figure is no evidence. What is counted has
// arrived at the far end. The bench decides nothing: it fails only if it cannot measure.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const usage = `usage: bench [-run P5,P7] [-rounds N] [-window 2s] [-quick] [-congestion NAME] [-out DIR]
experiments: P1 UDP through XDP, P2 TCP through tc, P3 processor time of a packet, P4 UDP through the relay in user space, P5 TCP goodput,
P6 goodput over QUIC, P7 latency, P8 new connections, P9 cold start, P10 long fat path, S1 size of the portal, S2 its memory, S3 the server's for a portal,
S4 idle traffic, S5 memory of the kernel's table,
D1 goodput of a direct path, D2 how soon there is one, D3 idle traffic with one, G3 server away, G4 relays killed
`

// options are what the command line says.
type options struct {
	run        []string // ids of experiments; all if empty
	rounds     int
	window     time.Duration // for which one figure is measured
	quick      bool
	congestion string
	out        string
}

func main() {
	if len(os.Args) > 1 && slices.Contains([]string{"client", "pump", "crowd", "floor"}, os.Args[1]) {
		if err := play(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n%s", err, usage)
		os.Exit(2)
	}
	if err := measure(o); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// play makes this program a part of the lab.
func play(part string, args []string) error {
	switch part {
	case "pump":
		return runPump(os.Stdin)
	case "crowd":
		return runCrowd(args, os.Stdin, os.Stdout)
	case "floor":
		return runFloor(args)
	default:
		return runClient(args)
	}
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := flags.String("run", "", "experiments to run, by id")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of every experiment")
	flags.DurationVar(&o.window, "window", 2*time.Second, "for how long one figure is measured")
	flags.BoolVar(&o.quick, "quick", false, "few and short rounds, for a first look")
	flags.StringVar(&o.congestion, "congestion", "bbr", "TCP congestion control of every machine")
	flags.StringVar(&o.out, "out", "bench", "folder for the JSON file")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *run != "" {
		o.run = strings.Split(*run, ",")
	}
	for _, id := range o.run {
		if !slices.ContainsFunc(experiments, func(e experiment) bool { return e.id == id }) {
			return o, fmt.Errorf("there is no experiment %q", id)
		}
	}
	if o.quick {
		o.window, o.rounds = o.window/4, min(o.rounds, 2)
	}
	if o.rounds < 1 || o.window <= 0 {
		return o, errors.New("at least one round and some time are needed")
	}
	return o, nil
}

// measure runs the experiments in a lab. The lab wants a test to fail, to clean up with and to hang directories on;
// package testing makes one for programs that are not run by go test.
func measure(o options) error {
	testing.Init()
	if err := flag.Set("test.benchtime", "1x"); err != nil { // or it would be called again and again
		return err
	}
	var err error
	done := false
	testing.Benchmark(func(b *testing.B) {
		err = runAll(b, o)
		done = true
	})
	if !done {
		return errors.New("the lab could not be built or has broken")
	}
	return err
}

// talkative is a test that says at once, on standard error, why it failed. (Without go test nobody would print it.)
type talkative struct{ *testing.B }

func (t talkative) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (t talkative) Errorf(format string, args ...any) { t.Logf(format, args...); t.Fail() }
func (t talkative) Fatalf(format string, args ...any) { t.Logf(format, args...); t.FailNow() }
func (t talkative) Log(args ...any)                   { fmt.Fprintln(os.Stderr, args...) }
func (t talkative) Error(args ...any)                 { t.Log(args...); t.Fail() }
func (t talkative) Fatal(args ...any)                 { t.Log(args...); t.FailNow() }
func (t talkative) Skip(args ...any)                  { t.Log(args...); t.SkipNow() }
