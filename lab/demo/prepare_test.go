package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestTakenPortIsNotChosen(t *testing.T) {
	ln := listenTCP(t)
	taken := ln.Addr().(*net.TCPAddr)
	got, err := freeAddress("tcp", taken.Port)
	if err != nil {
		t.Fatal(err)
	}
	if got == taken.String() {
		t.Errorf("got %s, which is taken", got)
	}
	free, err := net.Listen("tcp", got)
	if err != nil {
		t.Fatalf("the chosen address is not free: %v", err)
	}
	free.Close()
}

func TestRelayMayForwardToLoopbackAfterwards(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("# Never.\nallow_loopback = false\n\ncapacity = 4000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := onLoopback(file, "127.0.0.2"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Never.\nallow_loopback = true\naddresses = [\"127.0.0.2\"]\n\ncapacity = 4000\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := onLoopback(file, "127.0.0.2"); err == nil {
		t.Error("a configuration without the line was accepted")
	}
}
