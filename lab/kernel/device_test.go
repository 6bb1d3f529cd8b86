package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// mostDown is how soon after an interface is back sessions must be, too (F55).
const mostDown = 3 * time.Second

// wantBack wants a datagram to get through from each leg to the other, soon.
func wantBack(t *testing.T, legs [2]udpLeg) {
	t.Helper()
	for i := range legs {
		conn := legs[1-i].PacketConn.(*net.UDPConn)
		await.Within(t, "forwarding again", mostDown, func() error {
			if _, err := legs[i].Write([]byte("back?")); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			_, err := conn.Read(make([]byte, 100))
			return err
		})
		for { // those that were sent before and come late
			if _, err := conn.Read(make([]byte, 100)); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
	}
}

// F55: an interface that goes down and up, and one whose MTU changes, forwards on when it is back.
func TestInterfaceThatComesBackForwardsAgain(t *testing.T) {
	t.Parallel()
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode})
			m := w.meet(anyTerms)
			legs, ends := m.bind(), m.connect(0)
			checkDatagrams(t, legs, datagrams(10))
			host := w.relay.Host()
			for range 2 {
				host.SetUp(false)
				host.SetUp(true)
				wantBack(t, legs)
			}
			host.Run("ip", "link", "set", host.Device(), "mtu", "1400")
			wantBack(t, legs)
			before := stackOf(host)
			checkDatagrams(t, legs, datagrams(100))
			if n := stackOf(host).datagrams - before.datagrams; n > 10 {
				t.Errorf("%d datagrams reached the relay's sockets", n)
			}
			await.RoundTrip(t, ends[0], ends[1])
			w.relay.WaitReady()
			checkStream(t, w.meet(anyTerms).connect(0), 1<<20)
		})
	}
}

// An interface that appears while the relay runs is used.
func TestInterfaceThatAppearsIsUsed(t *testing.T) {
	w := newWorld(t, plan{})
	host := w.relay.Host()
	second := host.SecondUplink()
	await.Until(t, "attached to the new interface", func() error {
		if len(attached(t, host, second.Device)) == 0 {
			return errors.New("no program is there")
		}
		return nil
	})
	m := w.meet(anyTerms)
	m.at = [2]netip.Addr{second.Addr4, second.Addr4}
	before := stackOf(host)
	checkDatagrams(t, m.bind(), datagrams(100))
	if n := stackOf(host).datagrams - before.datagrams; n > 20 {
		t.Errorf("%d datagrams reached the relay's sockets", n)
	}
}

// passing attaches a program of somebody else to a host's device, which lets everything pass, and returns its number.
func passing(t *testing.T, host *topo.Host, kind ebpf.ProgramType) ebpf.ProgramID {
	t.Helper()
	verdict := int32(2) // XDP_PASS
	if kind == ebpf.SchedCLS {
		verdict = -1 // TCX_NEXT
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close() // the link holds it
	var stranger link.Link
	device, err := deviceOf(host, host.Device())
	if err != nil {
		t.Fatal(err)
	}
	host.Do(func() {
		if kind == ebpf.XDP {
			stranger, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Index, Flags: link.XDPDriverMode})
		} else {
			stranger, err = link.AttachTCX(link.TCXOptions{Program: program, Interface: device.Index, Attach: ebpf.AttachTCXIngress})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stranger.Close() })
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

// Programs of others stay where they are; the relay takes its place beside them.
func TestProgramsOfOthersStay(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]ebpf.ProgramType{"at XDP": ebpf.XDP, "at tc": ebpf.SchedCLS} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, plan{})
			host := w.lab.Public("relay-2")
			id := passing(t, host, kind)
			w.relay = w.broker.Relay(host, daemon.InKernel("auto"))
			if there := attached(t, host, host.Device()); len(there) != 2 || !slices.Contains(there, id) {
				t.Errorf("the programs %v are attached, want %v and the relay's", there, id)
			}
			want := []interfaceStatus{{Name: host.Device(), Mode: "tc"}}
			if s := w.status(); s.Mode != "tc" || s.Why != "" || !s.Pinned || !slices.Equal(s.Interfaces, want) {
				t.Errorf("status %+v, want mode tc at %s, pinned", s, host.Device())
			}
			w.check()
			w.relay.Stop()
			w.relay.Unload()
			if left := attached(t, host, host.Device()); !slices.Equal(left, []ebpf.ProgramID{id}) {
				t.Errorf("unload left the programs %v, want %v", left, id)
			}
		})
	}
}

// A relay that is told to take a mode that cannot be had says why and does not start. What an earlier one has left in the
// kernel goes on.
func TestModeThatIsTakenIsRefused(t *testing.T) {
	w := newWorld(t, plan{})
	host := w.relay.Host()
	m := w.meet(anyTerms)
	legs := m.bind()
	checkDatagrams(t, legs, datagrams(10))
	id := passing(t, host, ebpf.XDP)
	programs := attached(t, host, host.Device())

	w.relay.Stop()
	w.relay.Configure("mode", "xdp")
	w.relay.Launch()
	if status := w.relay.Process().Wait(); status != 1 {
		t.Errorf("the relay ended with status %d, want 1", status)
	}
	if log := w.relay.Log(); !strings.Contains(log, "busy") || !strings.Contains(log, "eth0") {
		t.Errorf("the relay does not say why:\n%s", log)
	}
	if now := attached(t, host, host.Device()); !slices.Equal(now, programs) || !slices.Contains(now, id) {
		t.Errorf("the programs were %v and are %v", programs, now)
	}
	checkDatagrams(t, legs, datagrams(100))

	w.relay.Configure("mode", "auto")
	w.relay.Start()
	if held := w.broker.Held(w.relay); len(held) != 1 || held[0].ID != m.ID {
		t.Errorf("the relay holds %v, want %v", held, m.ID)
	}
	checkDatagrams(t, legs, datagrams(100))
}

// A relay without rights, or on a machine without a BPF file system, serves all the same.
func TestRelayServesWithWhatItHas(t *testing.T) {
	t.Parallel()
	t.Run("no rights", func(t *testing.T) {
		w := newWorld(t, plan{})
		w.relay = w.broker.Relay(w.lab.Public("relay-2"), daemon.Set("mode", "auto"))
		m := w.meet(anyTerms)
		if m.Ready.Packet != [2]uint16{} {
			t.Errorf("there is packet mode: %+v", m.Ready)
		}
		checkDatagrams(t, m.bind(), datagrams(100))
		if s := w.status(); s.Mode != "userspace" || !strings.Contains(s.Why, "CAP_NET_RAW") || s.Pinned {
			t.Errorf("status %+v, want user space and why", s)
		}
	})
	t.Run("no BPF file system", func(t *testing.T) {
		w := newWorld(t, plan{})
		host := w.relay.Host()
		w.relay.Stop()
		host.UnmountBPF()
		w.relay.Start()
		w.relay.WaitLog("ends with this process")
		if s := w.status(); s.Mode != "tc" || s.Pinned {
			t.Errorf("status %+v, want mode tc and nothing pinned", s)
		}
		w.check()
		w.relay.Kill()
		await.Until(t, "without any program", func() error {
			if left := attached(t, host, host.Device()); len(left) > 0 {
				return fmt.Errorf("%v are attached", left)
			}
			return nil
		})
	})
}

// G12: what a relay that forwards in the kernel keeps of its rights after the start.
func TestRelayKeepsFewRights(t *testing.T) {
	w := newWorld(t, plan{})
	const most = 1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	for line := range strings.Lines(w.relay.Host().Run("cat", fmt.Sprintf("/proc/%d/status", w.relay.Process().PID()))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapAmb":
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil || set&^most != 0 {
				t.Errorf("%s is %s, %v; want no more than %x", name, value, err, uint64(most))
			}
		case "NoNewPrivs":
			if strings.TrimSpace(value) != "1" {
				t.Errorf("%s is %s, want 1", name, value)
			}
		}
	}
	w.check() // it does its work with them
}
