package kernel

import (
	"strconv"
	"strings"

	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/wire"
)

// status is what a relay says of itself, as far as it is looked at here.
type status struct {
	Mode        string            `json:"mode"`
	Why         string            `json:"why"`
	Pinned      bool              `json:"pinned"`
	Interfaces  []interfaceStatus `json:"interfaces"`
	UDPShort    int               `json:"udp_short"`
	Drops       map[string]uint64 `json:"drops"`
	KernelDrops map[string]uint64 `json:"kernel_drops"`
	Sessions    []sessionStatus   `json:"sessions"`
}

type interfaceStatus struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	Why  string `json:"why"`
}

type sessionStatus struct {
	ID    wire.SessionID `json:"session"`
	Forth uint64         `json:"bytes_forth"`
	Back  uint64         `json:"bytes_back"`
	Flows int            `json:"tcp_flows"`
}

func (w *world) status() (s status) {
	w.t.Helper()
	w.relay.Status(&s)
	return s
}

// of is a session's line.
func (s status) of(id wire.SessionID) (sessionStatus, bool) {
	for _, line := range s.Sessions {
		if line.ID == id {
			return line, true
		}
	}
	return sessionStatus{}, false
}

// carried are the bytes that the relay says it has carried for a session.
func (m *meeting) carried() sessionStatus {
	m.w.t.Helper()
	s := m.w.status()
	line, ok := s.of(m.ID)
	if !ok {
		m.w.t.Fatalf("the relay has no session %v: %+v", m.ID, s.Sessions)
	}
	return line
}

// stack is what the IP stack of a host has taken, as its own counters say: what the kernel plane forwards never gets
// there.
type stack struct{ datagrams, segments int64 }

func stackOf(host *topo.Host) (s stack) {
	counters := make(map[string]int64)
	lines := strings.Split(host.Run("cat", "/proc/net/snmp"), "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names, then values
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := 1; j < len(names) && j < len(values); j++ {
			n, _ := strconv.ParseInt(values[j], 10, 64)
			counters[names[0]+names[j]] = n
		}
	}
	for line := range strings.Lines(host.Run("cat", "/proc/net/snmp6")) {
		if fields := strings.Fields(line); len(fields) == 2 {
			counters[fields[0]], _ = strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return stack{
		datagrams: counters["Udp:InDatagrams"] + counters["Udp:NoPorts"] + counters["Udp6InDatagrams"] + counters["Udp6NoPorts"],
		segments:  counters["Tcp:InSegs"], // of both IP versions
	}
}

// check carries datagrams and a stream over new legs, and wants nothing to be lost, nothing of it to reach the relay's
// sockets, and the relay to have counted it.
func (w *world) check() {
	w.t.Helper()
	m := w.meet(anyTerms)
	legs, ends := m.bind(), m.connect(0)
	before := stackOf(w.relay.Host())
	d := datagrams(300)
	const size = 2 << 20
	checkDatagrams(w.t, legs, d)
	checkStream(w.t, ends, size)
	after := stackOf(w.relay.Host())
	// Beside the control connection, and the first packets, which user space may have while it installs the flow.
	const few = 60
	if n := after.datagrams - before.datagrams; n > few {
		w.t.Errorf("%d datagrams reached the relay's sockets", n)
	}
	if n := after.segments - before.segments; n > few {
		w.t.Errorf("%d segments reached the relay's sockets", n)
	}
	const sent = 300*200 + size
	if s := w.status(); s.UDPShort != 1 || s.Mode == "userspace" {
		w.t.Errorf("the relay says that the kernel carries %d UDP pairs in mode %s, want 1", s.UDPShort, s.Mode)
	}
	carried := m.carried()
	if carried.Flows > 1 { // 0: its end has been seen
		w.t.Errorf("the relay says that the session has %d connections in the kernel, want 1", carried.Flows)
	}
	// TCP may send some twice, and the stream has its blocks' headers.
	if most := uint64(sent + sent/10); carried.Forth < sent || carried.Back < sent || carried.Forth > most || carried.Back > most {
		w.t.Errorf("the relay counted %d bytes forth and %d back, want %d each or little more", carried.Forth, carried.Back, sent)
	}
}
