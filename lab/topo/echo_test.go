package topo_test

import (
	"io"
	"net"
	"testing"

	"github.com/netport/netport/lab/topo"
)

func TestEchoEndsWhatIsOpen(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := topo.Echo(t, ln)
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := make([]byte, 5)
	if _, err := io.WriteString(conn, "there"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "there" {
		t.Errorf("%q came back, %v", got, err)
	}
	stop()
	if n, err := conn.Read(got); err == nil {
		t.Errorf("%d bytes came after the end", n)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("it takes connections after the end")
	}
}
