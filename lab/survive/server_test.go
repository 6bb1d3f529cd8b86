package survive

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// undisturbed is what traffic may stand still at most where nothing of it is touched (G3).
const undisturbed = 200 * time.Millisecond

// F9, F11 and G3: the server is killed and is away for a while. Nothing that runs is disturbed, and it comes back with
// another policy: what that takes back is cut, and nothing else.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.endures(t, fault{
			stall: undisturbed, rounds: 1,
			strike: func() {
				w.allow(t, append(w.forwards(), w.extra())...)
				going := connect(t, w.laptop, extraPort, w.atFactory)
				w.Server.Kill()
				w.waitServer(t, false)
				await.Passing(t, whole(3*time.Second, 10*time.Minute))
				w.Apply(policy(w.forwards()...)) // to the state of the stopped server
				for _, end := range []net.Conn{going.Client, going.Service} {
					await.Limit(t, end) // anew: it was a long time
				}
				await.RoundTrip(t, going.Client, going.Service)
				w.Server.Start()
				w.waitServer(t, true)
				start := time.Now()
				await.Reset(t, "client", going.Client)
				await.Reset(t, "service", going.Service)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %v until what is no longer allowed was cut, want 5 s at most", took)
				}
			},
			mend: func() { w.waitReady() },
		})
	})
}

// F42: the same for a server that is asked to stop.
func TestServerAskedToStop(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		f := w.serverAway(t, w.Server.Stop, time.Second)
		f.rounds = 3
		w.endures(t, f)
	})
}

// waitKnown waits until the server has both portals. One that had nothing to say may find out late that its connection leads
// nowhere, within 10 minutes (F31): a NAT that has forgotten it keeps the word of the server's end from it.
func (w *world) waitKnown(t *testing.T) {
	t.Helper()
	await.Within(t, "known to the server", 11*time.Minute, func() error {
		if out := w.Server.Run("status"); !strings.Contains(out, "2 of 2 connected") {
			return fmt.Errorf("the server says\n%s", out)
		}
		return nil
	})
}

// serverAway is a server that ends in some way and is started again after a while.
func (w *world) serverAway(t *testing.T, end func(), outage time.Duration) fault {
	return fault{
		stall: undisturbed, rounds: 1,
		strike: func() {
			end()
			await.Passing(t, outage)
			w.Server.Start()
			w.waitKnown(t)
		},
		mend: w.waitReady,
	}
}

// F31: the server's machine says nothing any more. Portals that have nothing to say to it find out within 10 minutes.
func TestServerSilent(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		w.endures(t, fault{
			stall: undisturbed, rounds: 1,
			strike: func() {
				w.Server.Host().SetRules(topo.DropAll)
				start := time.Now()
				await.Passing(t, whole(3*time.Second, 2*time.Minute))
				for _, p := range []*daemon.Portal{w.laptop, w.factory} {
					if !*full {
						break
					}
					await.Within(t, p.Name()+" aware of it", 10*time.Minute-time.Since(start), func() error {
						if p.Status().Server.Connected {
							return errors.New("it believes that it is connected")
						}
						return nil
					})
					t.Logf("%s knows after %v", p.Name(), time.Since(start))
				}
				w.Server.Host().SetRules()
			},
			mend: func() { w.waitServer(t, true); w.waitReady() },
		})
	})
}

func (w *world) waitReady() {
	for _, r := range w.relays {
		r.WaitReady()
	}
}

// F12: the server goes, then both portals, and the portals come back without it. They find each other by their tickets, at
// a relay that they know, and stay together when the server is back.
func TestPortalsRestartedWithoutServer(t *testing.T) {
	t.Parallel()
	const most = 10 * time.Second
	for name, end := range map[string]func(w *world){
		"killed":        func(w *world) { w.laptop.Kill(); w.factory.Kill() },
		"asked to stop": func(w *world) { w.laptop.Stop(); w.factory.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, plan{}, func(t *testing.T, w *world) {
				p := w.out(t)
				w.waitKept(t)
				w.Server.Kill()
				end(w)
				await.Reset(t, "client", p.Client)
				w.laptop.Launch()
				w.factory.Launch()
				start := time.Now()
				await.Within(t, "served without a server", most+await.Patience, func() error { return served(w.laptop, outPort, w.atFactory) })
				took := time.Since(start)
				t.Logf("usable after %v", took)
				if took > most {
					t.Errorf("it took %v until the portals had found each other, want %v at most", took, most)
				}
				w.endures(t, fault{
					stall: undisturbed, rounds: 1,
					strike: func() { w.Server.Start(); w.waitServer(t, true); w.waitReady() },
				})
			})
		})
	}
}

// waitKept waits until both portals have on disk what they were told: the grants, and tickets for both relays. They write it
// a while after they are told, and seldom.
func (w *world) waitKept(t *testing.T) {
	t.Helper()
	words := []string{w.relays[0].Name(), w.relays[1].Name()}
	for _, f := range w.forwards() {
		words = append(words, f.name)
	}
	for _, p := range []*daemon.Portal{w.laptop, w.factory} {
		await.Until(t, "kept by "+p.Name(), func() error {
			files, err := filepath.Glob(filepath.Join(p.Dir(), "state", "*"))
			if err != nil {
				return err
			}
			for _, name := range files {
				if strings.HasPrefix(filepath.Base(name), ".") {
					continue // it is being written
				}
				b, err := os.ReadFile(name) // a socket cannot be read
				if err == nil && !slices.ContainsFunc(words, func(w string) bool { return !bytes.Contains(b, []byte(w)) }) {
					return nil
				}
			}
			return fmt.Errorf("no file of %v has all of %q", files, words)
		})
	}
}

// F47: the name of the server cannot be looked up any more when the portal needs it next: it finds the server where it was.
func TestServersNameIsLost(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]dnsmessage.RCode{
		"no such name": dnsmessage.RCodeNameError, "failing": dnsmessage.RCodeServerFailure,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, plan{carriers: overBoth, names: true})
			w.endures(t, w.serversNameLost(t, code))
		})
	}
}

func (w *world) serversNameLost(t *testing.T, code dnsmessage.RCode) fault {
	return fault{
		stall: undisturbed, rounds: 1,
		strike: func() {
			w.names.fail(code)
			w.Server.Kill()
			await.Passing(t, time.Second)
			w.Server.Start()
			w.waitKnown(t)
		},
		mend: func() {
			if w.names.questions() == 0 {
				t.Error("nobody asked for the name, so that the test shows nothing")
			}
			w.names.fail(dnsmessage.RCodeSuccess)
			w.waitReady()
		},
	}
}
