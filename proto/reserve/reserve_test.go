//go:build unix

package reserve_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/netport/netport/proto/reserve"
	"github.com/netport/netport/proto/reserve/reservetest"
)

func TestLastDescriptorsAreKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const most = 128
	reservetest.Limit(t, most)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for {
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatalf("all descriptors were given away: %v", err)
		}
		held = append(held, out)
		in, err := reserve.Accept(l)
		if err != nil {
			if !errors.Is(err, syscall.EMFILE) {
				t.Fatal(err)
			}
			break
		}
		held = append(held, in)
	}
	if len(held) < most-reserve.Size-20 { // the test's own
		t.Errorf("refused when %d were held", len(held))
	}
	// There are still some for what is not checked.
	for range reserve.Size - 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatalf("none is left: %v", err)
		}
		held = append(held, c)
	}
	if err := reserve.Check(held[len(held)-1]); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("one of the last: %v", err)
	}
	if err := reserve.Check(held[0]); err != nil {
		t.Errorf("one of the first: %v", err)
	}
	// And as soon as one comes back, it is given.
	held[2].Close()
	held[4].Close()
	in, err := reserve.Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	held = append(held, in)
}

// TestSpareIsLentForWantOfADescriptor: and for nothing else.
func TestSpareIsLentForWantOfADescriptor(t *testing.T) {
	var spare reserve.Spare
	spare.Hold()
	defer spare.Close()
	taken := reservetest.Exhaust(t)
	open := func() error {
		f, err := os.Open(os.DevNull)
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err
	}
	if spare.Lend(nil) || spare.Lend(os.ErrPermission) {
		t.Error("it was lent for another error")
	}
	if !spare.Lend(open()) {
		t.Fatal("it is not lent")
	}
	if err := open(); err != nil {
		t.Errorf("with the spare one: %v", err)
	}
	spare.Hold() // there is none
	if spare.Lend(open()) {
		t.Error("what is not held was lent")
	}
	taken[0].Close()
	spare.Hold()
	if !spare.Lend(open()) {
		t.Error("it was not held again")
	}
}
