package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	fileSize   = 200e6 // of the file that is fetched, in bytes
	host       = "plc." + exitName + ".example"
	readyLimit = 20 * time.Second // for all daemons to find each other
)

// tell is the demo: it prepares everything in a temporary directory, uses it, prints
// what it saw, and leaves nothing behind. With keep it waits for ctx before it ends
// what it started.
func tell(ctx context.Context, bin string, keep bool) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return fmt.Errorf("find the programs: %w", err)
	}
	dir, err := os.MkdirTemp("", "netport-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o700); err != nil {
		return fmt.Errorf("make a folder for the logs: %w", err)
	}

	ps := newProcesses(logs)
	defer ps.stop()
	watched, cancel := ps.watch(ctx)
	defer cancel()
	s := &story{world: world{dir: dir, bin: bin}, ps: ps, out: newPrinter(os.Stdout)}
	if err := s.run(watched, keep); err != nil {
		// The log with the reason is in the directory: report it before that goes.
		report(os.Stderr, reason(watched, err))
		return errReported
	}
	cancel()
	ps.stop()
	s.out.end("Everything was stopped and removed again.")
	return nil
}

// reason returns why the demo failed. What a step says when a program died under it
// is not it, nor what it says when the user ended the demo.
func reason(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case errors.Is(cause, context.Canceled):
		return errors.New("interrupted")
	}
	return cause
}

// run tells the story. With keep it returns when ctx ends.
func (s *story) run(ctx context.Context, keep bool) error {
	for _, step := range []func(context.Context) error{
		s.startServices, s.prepare, s.startDaemons, s.fetchFile, s.askName, s.killRelay,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if !keep {
		return nil
	}
	s.invite()
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// story is the demo while it is told. It belongs to one goroutine.
type story struct {
	world
	ps  *processes
	out *printer

	sum            string // SHA-256 of the file on the web server's disk
	server         *program
	relays         [2]*program
	entry, exit    *program
	webServer, dns *program
}

// startServices starts the two programs that are reached through the tunnel.
func (s *story) startServices(ctx context.Context) error {
	s.out.title("Netport demo: a server, two relays and two portals, all on this machine")
	if err := s.choosePorts(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the demo's own program: %w", err)
	}
	www := filepath.Join(s.dir, "www")
	if err := os.Mkdir(www, 0o700); err != nil {
		return fmt.Errorf("make a folder for the web server: %w", err)
	}
	if s.sum, err = writeFile(filepath.Join(www, fileName), fileSize); err != nil {
		return err
	}
	if s.webServer, s.webTo, err = s.ps.start("web-server", self, []string{"web", www}, true); err != nil {
		return err
	}
	s.dns, s.dnsTo, err = s.ps.start("name-server", self, []string{"names"}, true)
	return err
}

// prepare makes identities and the policy.
func (s *story) prepare(ctx context.Context) error {
	s.out.step("Identities and policy")
	if err := s.issueIdentities(ctx); err != nil {
		return err
	}
	for i, name := range relays {
		if err := onLoopback(s.config(name), relayHosts[i]); err != nil {
			return err
		}
	}
	for _, name := range []string{entryName, exitName} {
		if err := overRelays(s.config(name)); err != nil {
			return err
		}
	}
	policy, err := s.applyPolicy(ctx)
	if err != nil {
		return err
	}
	s.out.row("identity", "a new CA for %s; server, %s, %s, %s and %s", domain, relays[0], relays[1], entryName, exitName)
	s.out.row("policy", "version %d: %d forwards, its %d tests passed", policy.Version, policy.Forwards, policy.Tests)
	s.out.row(webForward, "%s tcp://%s -> %s tcp://%s", entryName, s.webFrom, exitName, s.webTo)
	s.out.row(dnsForward, "%s udp://%s -> %s udp://%s", entryName, s.dnsFrom, exitName, s.dnsTo)
	return nil
}

// startDaemons starts server, relays and portals and waits until both forwards are
// up.
func (s *story) startDaemons(ctx context.Context) error {
	s.out.step("Programs")
	start := time.Now()
	for _, daemon := range []struct {
		name, role string
		program    **program
	}{
		{"server", "server", &s.server},
		{relays[0], "relay", &s.relays[0]},
		{relays[1], "relay", &s.relays[1]},
		{exitName, "portal", &s.exit},
		{entryName, "portal", &s.entry},
	} {
		p, _, err := s.ps.start(daemon.name, s.program(daemon.role), []string{"run", "--config", s.config(daemon.name)}, false)
		if err != nil {
			return err
		}
		*daemon.program = p
	}
	if err := s.untilReady(ctx); err != nil {
		return err
	}
	s.out.row("server", "process %d, control plane on %s", s.server.pid, s.world.server)
	s.out.row("relays", "processes %d and %d, join the portals' connections", s.relays[0].pid, s.relays[1].pid)
	s.out.row(entryName, "process %d, entry portal: listens on", s.entry.pid)
	s.out.row("", "  %s (TCP) and %s (UDP)", s.webFrom, s.dnsFrom)
	s.out.row(exitName, "process %d, exit portal: dials", s.exit.pid)
	s.out.row("", "  %s (web server, process %d) and", s.webTo, s.webServer.pid)
	s.out.row("", "  %s (name server, process %d)", s.dnsTo, s.dns.pid)
	s.out.row("ready", "after %s: both forwards are up", short(time.Since(start)))
	return nil
}

// fetchFile gets the large file through the tunnel.
func (s *story) fetchFile(ctx context.Context) error {
	s.out.step("A file over HTTP, through the tunnel")
	url := "http://" + s.webFrom + "/" + fileName
	got, err := fetch(ctx, url, nil)
	if err != nil {
		return s.entry.blame(err)
	}
	if got.SHA256 != s.sum {
		return s.entry.blame(fmt.Errorf("fetch %s: SHA-256 is %s, on the web server's disk %s", url, got.SHA256, s.sum))
	}
	path, err := s.way(ctx)
	if err != nil {
		return err
	}
	s.out.row("fetched", "%s", url)
	s.out.row("path", "%s", path)
	s.out.row("speed", "%.0f MB in %s, %.0f MB/s", float64(got.Bytes)/1e6, short(got.Took), got.rate())
	s.out.row("SHA-256", "%s", got.SHA256)
	s.out.row("", "equal to that of the file on the web server's disk")
	return nil
}

// askName asks the name server through the forwarded UDP port.
func (s *story) askName(ctx context.Context) error {
	s.out.step("A name server over UDP, through the tunnel")
	got, took, err := lookup(ctx, s.dnsFrom, host)
	if err != nil {
		return s.entry.blame(err)
	}
	if want := zone[host+"."]; got != want {
		return s.entry.blame(fmt.Errorf("ask %s for %s: got %s, want %s", s.dnsFrom, host, got, want))
	}
	s.out.row("asked", "%s for %s", s.dnsFrom, host)
	s.out.row("answer", "%s, after %s", got, short(took))
	return nil
}

// killRelay kills the relay under a download, which goes on over the other one.
func (s *story) killRelay(ctx context.Context) error {
	s.out.step("The same file, and its relay killed when half of it has come")
	before, err := s.way(ctx)
	if err != nil {
		return err
	}
	relay := s.relays[slices.Index(relays[:], before.relay)]
	url := "http://" + s.webFrom + "/" + fileName
	got, err := fetch(ctx, url, relay.kill)
	if err != nil {
		return s.entry.blame(err)
	}
	if got.SHA256 != s.sum {
		return s.entry.blame(fmt.Errorf("fetch %s: SHA-256 is %s, on the web server's disk %s", url, got.SHA256, s.sum))
	}
	after, err := s.way(ctx)
	if err != nil {
		return err
	}
	s.out.row("killed", "%s, process %d, with SIGKILL", before.relay, relay.pid)
	s.out.row("path", "%s", after)
	s.out.row("paused", "for %s; the same TCP connection of the client went on", short(got.Pause))
	s.out.row("SHA-256", "equal again, after %s", short(got.Took))
	return nil
}

// invite prints what can be tried while everything runs.
func (s *story) invite() {
	s.out.step("It stays like this until Ctrl-C. Try in another terminal:")
	s.out.commands(fmt.Sprintf(`cd %[1]s; PATH=$PATH:%[2]s
curl -o /dev/null http://%[3]s/%[4]s
netport-demo ask %[5]s camera.%[7]s.example
netport-portal status --config %[6]s/config.toml
netport-portal ping %[7]s --config %[6]s/config.toml
netport-portal explain %[8]s --config %[6]s/config.toml
netport-server sessions --config server/config.toml
netport-server audit --config server/config.toml
tail -f logs/*.log
`, s.dir, s.bin, s.webFrom, fileName, s.dnsFrom, entryName, exitName, webForward))
}
