package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/daemon"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"netport-server": main})
}

func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			_, port, err := net.SplitHostPort(l.Addr().String())
			e.Setenv("PORT", port)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"listens": listens,
			"mode":    mode,
			"serving": serving,
			"until":   until,
		},
	})
}

// exits CODE COMMAND [ARGS]: the command must end with this exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGS]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var ended *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// until REGEXP PROGRAM [ARGS] runs a program again and again until it prints what
// matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARGS]")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("nothing that matches %s was printed", args[0])
		}
	}
}

// listens ADDRESS: the configuration srv/config.toml names this address to listen on.
func listens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listens ADDRESS")
	}
	file := ts.MkAbs(filepath.Join("srv", "config.toml"))
	line := regexp.MustCompile("(?m)^listen = .*$")
	ts.Check(os.WriteFile(file, line.ReplaceAllLiteral([]byte(ts.ReadFile(file)), fmt.Appendf(nil, "listen = [%q]", args[0])), 0o600))
}

// mode PERM FILE...: the files must have exactly this mode.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mode PERM FILE...")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, f := range args[1:] {
		info, err := os.Stat(ts.MkAbs(f))
		ts.Check(err)
		if got := info.Mode().Perm(); got != fs.FileMode(want) {
			ts.Fatalf("%s has mode %04o, want %04o", f, got, want)
		}
	}
}

// serving CONFIG: waits until a server answers on the socket of this
// configuration.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serving CONFIG")
	}
	cfg, err := config.Load(ts.MkAbs(args[0]))
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; {
		var status daemon.Status
		err := local.Call(context.Background(), cfg.Socket, daemon.CommandStatus, nil, &status)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the server does not answer: %v", err)
		}
		<-time.After(10 * time.Millisecond)
	}
}
