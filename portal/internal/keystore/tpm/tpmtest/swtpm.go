// Package tpmtest runs tests against a software TPM (swtpm).
package tpmtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startTime is how long swtpm may take to answer after its start.
const startTime = 20 * time.Second

// TPM is a swtpm with a state of its own.
type TPM struct {
	Path string // Unix socket

	t   *testing.T
	dir string
	cmd *exec.Cmd // nil: it is stopped
}

// New starts a new TPM. Without swtpm the test is skipped, and fails where CI=true.
func New(t *testing.T) *TPM {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs program swtpm in PATH")
		}
		t.Skip("needs program swtpm in PATH")
	}
	dir, err := os.MkdirTemp("", "netport-tpm-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	m := &TPM{t: t, dir: dir, Path: filepath.Join(dir, "sock")}
	t.Cleanup(func() {
		m.Stop()
		os.RemoveAll(dir)
	})
	m.Start()
	return m
}

// Start turns it on.
func (m *TPM) Start() {
	m.t.Helper()
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+m.dir,
		"--server", "type=unixio,path="+m.Path, "--flags", "not-need-init,startup-clear", "--log", "file="+filepath.Join(m.dir, "log"))
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cmd = cmd
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(startTime); ; {
		if conn, err := net.Dial("unix", m.Path); err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-end:
			log, _ := os.ReadFile(filepath.Join(m.dir, "log"))
			m.t.Fatalf("swtpm does not answer: %s", log)
		}
	}
}

// Stop takes the power away.
func (m *TPM) Stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
		os.Remove(m.Path)
	}
}
