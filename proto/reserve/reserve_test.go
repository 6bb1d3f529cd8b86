//go:build unix

package reserve_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/netport/netport/proto/reserve"
)

// limit lets the test have so many descriptors.
func limit(t *testing.T, most uint64) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
}

func TestLastDescriptorsAreKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const most = 128
	limit(t, most)
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
