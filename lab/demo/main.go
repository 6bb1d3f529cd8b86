// Command demo shows Netport on one machine, in a minute and without anything
// installed: it makes a CA, starts a server, two relays and two portals on
// loopback, forwards a web server and a name server from one portal to the other,
// uses both, kills a relay in the middle of a download, and says what it saw. make
// demo runs it.
//
// The web server, the name server and their clients are programs of their own
// (the subcommands web, names, fetch and ask), so that what the portals carry comes
// from processes that know nothing of Netport.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/netport/netport/proto/command/interrupt"
)

const usage = `usage: netport-demo [-bin DIR] [-keep]      the demo
       netport-demo web DIR                 serve DIR over HTTP on a free port
       netport-demo names                   serve names over UDP on a free port
       netport-demo fetch URL               fetch, and print size, speed and SHA-256
       netport-demo ask HOST:PORT NAME      ask a name server, over UDP
`

// errReported ends the program with exit status 1: the user knows why already.
var errReported = errors.New("reported")

// errUsage is answered with the usage and exit status 2.
var errUsage = errors.New("wrong arguments")

func main() {
	ctx, end := interrupt.Context()
	defer end()
	err := dispatch(ctx, os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, errReported):
		os.Exit(1)
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	default:
		report(os.Stderr, err)
		os.Exit(1)
	}
}

// dispatch runs the subcommand that args name.
func dispatch(ctx context.Context, args []string) error {
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch {
	case command == "":
		flags := flag.NewFlagSet("demo", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		bin := flags.String("bin", "bin", "the folder with the three programs")
		keep := flags.Bool("keep", false, "go on until Ctrl-C")
		if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
			return errUsage
		}
		return tell(ctx, *bin, *keep)
	case command == "web" && len(args) == 1:
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		return serveWeb(ctx, ln, args[0])
	case command == "names" && len(args) == 0:
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(conn.LocalAddr())
		return serveNames(ctx, conn)
	case command == "fetch" && len(args) == 1:
		got, err := fetch(ctx, args[0], nil)
		if err != nil {
			return err
		}
		fmt.Printf("%.1f MB in %s, %.0f MB/s\nSHA-256 %s\n", float64(got.Bytes)/1e6, short(got.Took), got.rate(), got.SHA256)
		return nil
	case command == "ask" && len(args) == 2:
		addr, took, err := lookup(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Printf("%s has address %s, answered in %s\n", args[1], addr, short(took))
		return nil
	}
	return errUsage
}

// report writes one line that says what went wrong and, if a program of the demo is
// concerned, the end of its log.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "netport-demo: %v\n", err)
	var f *failure
	if errors.As(err, &f) {
		fmt.Fprintf(w, "the last lines of the log of %s:\n", f.program.name)
		for line := range strings.Lines(f.program.tail() + "\n") {
			fmt.Fprintf(w, "  %s", line)
		}
	}
}
