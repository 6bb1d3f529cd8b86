package splice

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// relayProcess in the environment makes the test below the relay that it
// traces.
const relayProcess = "NETPORT_TEST_RELAY_PROCESS"

// serveRelay is a relay with one session: it prints the address and both leg
// secrets, and runs until its standard input ends.
func serveRelay(t *testing.T) {
	m := newRig(t, nil).session()
	id, _ := m.ID.MarshalText()
	fmt.Printf("relay %s %s %x %x\n", m.address, id, m.secrets[0][:], m.secrets[1][:])
	io.Copy(io.Discard, os.Stdin)
}

func TestPayloadIsNotCopiedThroughUserSpace(t *testing.T) {
	if os.Getenv(relayProcess) != "" {
		serveRelay(t)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("strace is not installed")
		}
		t.Skip("needs strace, which is not installed")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-qq", "-o", trace, "-e", "trace=splice,read,readv,pread64,recvfrom,recvmsg,recvmmsg,write,writev,sendto,sendmsg,sendmmsg",
		os.Args[0], "-test.run=^TestPayloadIsNotCopiedThroughUserSpace$", "-test.v")
	cmd.Env = append(os.Environ(), relayProcess+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, prefaces := readRelay(t, stdout)
	const size = 64 << 20
	carry(t, address, prefaces, size)
	stdin.Close()
	io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("relay under strace: %v (may this process trace another?)", err)
	}
	spliced, copied := sumTrace(t, trace)
	// Each byte is spliced twice, into a pipe and out of it. What is copied is
	// two prefaces, and the test binary's own affairs.
	if spliced < 2*size || copied > 256<<10 {
		t.Errorf("of %d bytes, %d were spliced in and out, and %d copied", size, spliced, copied)
	}
	t.Logf("%d bytes carried: %d spliced in and out, %d copied by any other call", size, spliced, copied)
}

// readRelay reads what serveRelay prints, and makes both prefaces.
func readRelay(t *testing.T, stdout io.Reader) (address string, prefaces [2][]byte) {
	t.Helper()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) != 5 || f[0] != "relay" {
			continue
		}
		var id leg.ID
		if err := id.Session.UnmarshalText([]byte(f[2])); err != nil {
			t.Fatal(err)
		}
		for n := range prefaces {
			secret, err := hex.DecodeString(f[3+n])
			if err != nil || len(secret) != len(wire.Secret{}) {
				t.Fatalf("secret %q: %v", f[3+n], err)
			}
			id.Leg = uint8(n)
			prefaces[n] = leg.NewPreface(id).AppendTo(nil, wire.Secret(secret))
		}
		return f[1], prefaces
	}
	t.Fatal("the relay process printed no session")
	return
}

// carry sends size bytes from leg 0 to leg 1.
func carry(t *testing.T, address string, prefaces [2][]byte, size int64) {
	t.Helper()
	var c [2]net.Conn
	for n := range c {
		var err error
		if c[n], err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer c[n].Close()
		c[n].SetDeadline(time.Now().Add(time.Minute))
		if _, err := c[n].Write(prefaces[n]); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		block := make([]byte, 64<<10)
		for sent := int64(0); sent < size; sent += int64(len(block)) {
			if _, err := c[0].Write(block); err != nil {
				t.Error(err)
				return
			}
		}
		c[0].(*net.TCPConn).CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, c[1]); n != size || err != nil {
		t.Fatalf("read %d of %d bytes, %v", n, size, err)
	}
}

var traced = regexp.MustCompile(`(splice|[a-z0-9]+)(?:\(| resumed).* = (\d+)$`)

// sumTrace adds up what the calls in a trace have moved.
func sumTrace(t *testing.T, name string) (spliced, copied int64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := traced.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "splice" {
			spliced += n
		} else {
			copied += n
		}
	}
	return spliced, copied
}
