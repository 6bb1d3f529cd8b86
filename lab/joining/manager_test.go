package joining

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/netport/netport/lab/await"
)

// manager listens as systemd does to daemons of Type=notify.
type manager struct {
	mu   sync.Mutex
	told []string
}

func newManager(t *testing.T) (m *manager, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m = &manager{}
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, string(b[:n]))
			m.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		c.Close()
		await.Return(t, "who reads what the manager is told", reading.Wait)
	})
	return m, socket
}

// wants waits until the manager was told all of something since a mark, and returns a new mark.
func (m *manager) wants(t *testing.T, since int, texts ...string) (mark int) {
	t.Helper()
	await.Until(t, "the manager is told "+strings.Join(texts, " and "), func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, said := range m.told[since:] {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(said, text)
			}
			if all {
				mark = len(m.told)
				return nil
			}
		}
		return fmt.Errorf("it was told %q", m.told[since:])
	})
	return mark
}

// TestServiceManagerIsToldHowDaemonsAre: each role says when it is ready, that it is alive, and that it stops; and a
// portal whose server is away is ready all the same, once the listeners of the grants that it has kept are open.
func TestServiceManagerIsToldHowDaemonsAre(t *testing.T) {
	systemd, socket := newManager(t)
	m := newMachine(t, nil, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=2000000")
	const ready, alive = "READY=1\n", "WATCHDOG=1\n"
	systemd.wants(t, 0, ready, "STATUS=connected: portals 0, relays 0")
	systemd.wants(t, 0, ready, "mode userspace")
	systemd.wants(t, 0, ready, "listeners 0 of 0")
	systemd.wants(t, 0, alive, "STATUS=connected: portals 2, relays 1")
	systemd.wants(t, 0, alive, "connected to a server; sessions 0; mode userspace")
	mark := systemd.wants(t, 0, alive, "connected to server at "+m.address+"; listeners 1 of 1")

	m.running["server"].stop()
	m.running["ann"].cmd.Process.Signal(syscall.SIGTERM)
	systemd.wants(t, mark, "STOPPING=1\n")
	m.running["ann"].stop()
	m.launchOf(residents[3])
	systemd.wants(t, mark, ready, "looking for a server; listeners 1 of 1")
}
