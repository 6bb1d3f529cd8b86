package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestTakenPortIsNotChosen(t *testing.T) {
	ln := listenTCP(t)
	taken := ln.Addr().(*net.TCPAddr)
	got, err := freeAddress("tcp", "127.0.0.1", taken.Port)
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

// A relay of the demo runs beside another one, or coturn, which has the port that is its by default.
func TestRelayFindsFreePortsOnLoopback(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("# Never.\nallow_loopback = false\nshared_tcp_port = 3478\nshared_udp_port = 3478\n\ncapacity = 4000\n[x]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const host = "127.0.0.9"
	if l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, sharedPort)); err == nil {
		defer l.Close()
	}
	if err := onLoopback(file, host); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^allow_loopback = true\naddresses = \["127\.0\.0\.9"\]\nshared_tcp_port = (\d+)\nshared_udp_port = \d+\n# Never\.\n\ncapacity = 4000\n\[x\]\n$`)
	if m := want.FindSubmatch(got); m == nil || string(m[1]) == fmt.Sprint(sharedPort) {
		t.Errorf("got %q", got)
	}
}
