package kernel

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/wire"
)

// kernelModes are those that a relay may run in on a lab's links.
var kernelModes = []string{"tc", "xdp", "xdp-generic"}

// G5, F3 and F4: while the daemon is killed and away, comes back, is restarted and is replaced by another version, the
// kernel forwards on, and each new daemon takes over what it finds: the session, its counters, the program's place.
func TestDaemonGoesAndComesAndNothingIsLost(t *testing.T) {
	t.Parallel()
	away := time.Second
	if *full {
		away = 10 * time.Second
	}
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode})
			m := w.meet(anyTerms)
			legs, ends := m.bind(), m.connect(0)
			checkDatagrams(t, legs, datagrams(10)) // the flow is in the kernel
			host := w.relay.Host()
			before := stackOf(host)
			load := w.startLoad(legs, ends, scaled(100_000, 10))

			programs, counted := attached(t, host, host.Device()), m.carried()
			tookOver := func(what string) {
				t.Helper()
				held := w.broker.Held(w.relay)
				if !slices.ContainsFunc(held, func(h wire.HeldSession) bool { return h.ID == m.ID }) {
					t.Errorf("%s: the relay holds the sessions %v, want %v among them", what, held, m.ID)
					return
				}
				now := m.carried()
				if now.Forth < counted.Forth || now.Back < counted.Back {
					t.Errorf("%s: the relay has counted %+v, and %+v before", what, now, counted)
				}
				counted = now
				others := attached(t, host, host.Device())
				wantReplaced(t, programs, others)
				programs = others
			}
			w.relay.Kill()
			await.Passing(t, away)
			w.relay.Start()
			tookOver("killed")
			w.relay.Restart()
			tookOver("restarted")
			w.relay.Install(newer)
			w.relay.Restart()
			tookOver("upgraded")
			w.relay.Kill()
			w.relay.Install(newer)
			w.relay.Start()
			tookOver("killed and upgraded")

			load.end()
			if n := stackOf(host).datagrams - before.datagrams; n > 10 {
				t.Errorf("%d datagrams reached the relay's sockets", n)
			}
			// What was adopted is used as before: a leg moves, a port serves again when its connection has ended.
			for i := range ends {
				ends[i].Close()
			}
			legs[0] = m.bindLeg(0, 2)
			checkDatagrams(t, legs, datagrams(10))
			checkStream(t, m.connect(0), 100<<10)
			counted = m.carried()
			// And it ends as a session does.
			w.broker.Close(w.relay, m.Session)
			await.Until(t, "told that the session is over", func() error {
				over, ok := w.broker.Over(m.Session)
				if !ok {
					return fmt.Errorf("the relay has not said so")
				}
				if over.Forth < counted.Forth || over.Back < counted.Back {
					t.Errorf("the relay has carried %+v in all, and %+v before", over, counted)
				}
				return nil
			})
			wantSilence(t, legs)
		})
	}
}

// wantSilence wants what one leg sends not to reach the other.
func wantSilence(t testing.TB, legs [2]udpLeg) {
	t.Helper()
	for i := range legs {
		if _, err := legs[i].Write([]byte("too late")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range legs {
		if err := legs[i].SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, err := legs[i].Read(b); err == nil {
			t.Errorf("leg %d got %q", i, b[:n])
		}
	}
}

// F5: a new version that does not fit what is there, or that the kernel does not let in, changes nothing: the old program
// forwards on, and the daemon says why. The old version takes it up again.
func TestVersionThatDoesNotFitLeavesTheOldOneAtWork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, relay *daemon.Relay) (repair func())
		says  []string // one of it
	}{
		{
			"maps of another size",
			func(_ *testing.T, relay *daemon.Relay) func() {
				relay.Configure("capacity", 5000)
				return func() { relay.Configure("capacity", 4000) }
			},
			[]string{"capacity", "maps", "map "},
		},
		{
			"a program that the verifier refuses",
			func(t *testing.T, relay *daemon.Relay) func() {
				var sound []byte
				relay.Install(func(program []byte) []byte {
					sound = bytes.Clone(program)
					return refused(t)(program)
				})
				return func() { relay.Install(func([]byte) []byte { return sound }) }
			},
			[]string{"R2 !read_ok"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, plan{})
			m := w.meet(anyTerms)
			legs, ends := m.bind(), m.connect(0)
			checkDatagrams(t, legs, datagrams(10))
			host := w.relay.Host()
			load := w.startLoad(legs, ends, scaled(100_000, 20))
			programs := attached(t, host, host.Device())

			w.relay.Stop()
			repair := tt.spoil(t, w.relay)
			w.relay.Launch()
			await.Until(t, "said why", func() error {
				log := w.relay.Log()
				if !slices.ContainsFunc(tt.says, func(text string) bool { return strings.Contains(log, text) }) {
					return fmt.Errorf("the relay says\n%s", log)
				}
				return nil
			})
			if now := attached(t, host, host.Device()); !slices.Equal(now, programs) {
				t.Errorf("the programs were %v and are %v", programs, now)
			}
			await.Passing(t, 500*time.Millisecond) // it works on, whatever the new one does
			w.relay.Kill()
			repair()
			w.relay.Start()
			if held := w.broker.Held(w.relay); len(held) != 1 || held[0].ID != m.ID {
				t.Errorf("the old version holds %v, want %v", held, m.ID)
			}
			wantReplaced(t, programs, attached(t, host, host.Device()))
			load.end()
		})
	}
}

// F6: when the daemon never comes back, what is used goes on, and what is not dies by its own lifetime.
func TestSessionsOutliveTheDaemonOnlyWhileTheyAreUsed(t *testing.T) {
	t.Parallel()
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			const lifetime = 2 * time.Second
			w := newWorld(t, plan{mode: mode})
			m := w.meet(daemon.Terms{Lifetime: lifetime})
			legs := m.bind()
			checkDatagrams(t, legs, datagrams(10))
			w.relay.Kill()

			load := w.startLoad(legs, [2]net.Conn{}, 1)
			await.Passing(t, lifetime+2*time.Second)
			load.end()
			await.Passing(t, lifetime+500*time.Millisecond)
			wantSilence(t, legs)

			w.relay.Start()
			if s := w.status(); s.KernelDrops["expired"] < 2 {
				t.Errorf("the kernel dropped %v, want the two datagrams that came too late", s.KernelDrops)
			}
			await.Until(t, "rid of the session", func() error {
				if line, ok := w.status().of(m.ID); ok {
					return fmt.Errorf("the relay has %+v", line)
				}
				return nil
			})
			wantSilence(t, legs)
		})
	}
}

// A relay that is started anew in another mode takes its sessions with it: the new program is there before the old one goes.
func TestModeIsChangedAndNothingIsLost(t *testing.T) {
	w := newWorld(t, plan{mode: "xdp"})
	m := w.meet(anyTerms)
	legs, ends := m.bind(), m.connect(0)
	checkDatagrams(t, legs, datagrams(10))
	load := w.startLoad(legs, ends, scaled(100_000, 20))
	for _, mode := range []string{"tc", "xdp", "auto"} {
		w.relay.Configure("mode", mode)
		w.relay.Restart()
		if got, want := w.status().Mode, strings.Replace(mode, "auto", "tc", 1); got != want {
			t.Errorf("the relay's mode is %s, want %s", got, want)
		}
	}
	load.end()
}

// F7: a relay whose machine was rebooted has no sessions and says so; new ones work at once.
func TestRebootedRelayBeginsAnew(t *testing.T) {
	w := newWorld(t, plan{})
	m := w.meet(anyTerms)
	legs, ends := m.bind(), m.connect(0)
	checkDatagrams(t, legs, datagrams(10))
	await.RoundTrip(t, ends[0], ends[1])
	host := w.relay.Host()

	w.relay.Kill()
	host.UnmountBPF()
	await.Until(t, "without any program", func() error {
		if programs := attached(t, host, host.Device()); len(programs) > 0 {
			return fmt.Errorf("%v are attached", programs)
		}
		return nil
	})
	host.MountBPF(daemon.User)
	w.relay.Start()
	if held := w.broker.Held(w.relay); len(held) > 0 {
		t.Errorf("the relay comes back with %v", held)
	}
	wantSilence(t, legs)
	w.check()
}

// What "netport-relay unload" leaves is a machine that has never seen a relay.
func TestUnloadTakesEverythingDown(t *testing.T) {
	t.Parallel()
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode})
			m := w.meet(anyTerms)
			legs := m.bind()
			checkDatagrams(t, legs, datagrams(10))
			host := w.relay.Host()
			if out, err := w.relay.Command("unload").CombinedOutput(); err == nil || !strings.Contains(string(out), "running") {
				t.Errorf("unload while the relay runs: %v, %s", err, out)
			}
			w.relay.Stop()
			checkDatagrams(t, legs, datagrams(100)) // stopped is not unloaded

			w.relay.Unload()
			wantSilence(t, legs)
			if programs := attached(t, host, host.Device()); len(programs) > 0 {
				t.Errorf("the programs %v are attached still", programs)
			}
			if left := host.Run("find", "/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
			w.relay.Start()
			w.check()
		})
	}
}
