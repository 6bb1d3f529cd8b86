package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

var full = flag.Bool("full", false, "download a whole gigabyte while everything under it changes")

// lasting is a world with a second relay, for connections that outlive what carries them.
type lasting struct {
	*world
	relays []*daemon.Relay
}

func newLasting(t *testing.T) lasting {
	t.Helper()
	w := newWorld(t)
	return lasting{w, []*daemon.Relay{w.relay, w.Relay(w.lab.Public("relay-2"))}}
}

// upheavals are what one connection of an application lives through, one after another: each time, use shows that it still
// works.
func (w lasting) upheavals(t *testing.T, use func(behind string)) {
	t.Helper()
	use("nothing")
	killed := w.inUse(t)
	killed.Kill()
	use("the relay was killed")
	killed.Start()

	w.home.Renumber()
	use("the NAT came back with another address")

	w.home.SetRules(topo.BlockTCPTo(w.relays[0].Host().Addr(), w.relays[1].Host().Addr()))
	use("TCP to the relays was blocked")
	w.home.SetRules(topo.BlockUDPTo(w.relays[0].Host().Addr(), w.relays[1].Host().Addr()))
	use("TCP was let through again, and UDP blocked")
	w.home.SetRules()
}

// inUse is the relay over which laptop's tunnel goes.
func (w lasting) inUse(t *testing.T) *daemon.Relay {
	t.Helper()
	for _, tunnel := range w.laptop.Status().Tunnels {
		for _, r := range w.relays {
			if tunnel.Up && tunnel.Relay == r.Name() {
				return r
			}
		}
	}
	t.Fatalf("there is no tunnel: %+v", w.laptop.Status().Tunnels)
	return nil
}

// dialogue is a program that answers each line it is sent, and that must never end by itself.
type dialogue struct {
	t       *testing.T
	in      io.Writer
	answers chan string
}

func converse(t *testing.T, cmd *topo.Cmd) *dialogue {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &dialogue{t: t, in: in, answers: make(chan string)}
	go func() {
		defer close(d.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.answers <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		for range d.answers { // until its goroutine has ended
		}
		cmd.Wait()
		if t.Failed() {
			t.Logf("%q said %s", cmd.Args, &said)
		}
	})
	return d
}

// ask sends a line and wants one back.
func (d *dialogue) ask(line, want string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
	select {
	case got, ok := <-d.answers:
		if !ok || got != want {
			d.t.Fatalf("it answered %q (%t) to %q, want %q", got, ok, line, want)
		}
	case <-time.After(await.Patience):
		d.t.Fatalf("no answer to %q within %v", line, await.Patience)
	}
}

// A shell goes on counting, in the same session.
func TestSSHSessionOutlivesWhatCarriesIt(t *testing.T) {
	w := newLasting(t)
	sshd := startSSHD(t, w.plc)
	w.allow(t, w.offer("ssh", "tcp", 2200, endpoint("tcp", w.plc.Addr(), sshPort))...)
	c := w.clients()[0]
	ssh := sshd.client(t, c.host, "lasting", fmt.Sprintf("HostName %s\nPort 2200", c.entry))
	shell := converse(t, ssh.command("ssh", "plc", "while read line; do n=$((n+1)); echo $n $line; done"))
	count := 0
	w.upheavals(t, func(behind string) {
		start := time.Now()
		for range 3 {
			count++
			shell.ask("lines", fmt.Sprintf("%d lines", count))
		}
		t.Logf("%s: three lines after %v", behind, time.Since(start))
	})
}

// A transaction goes on, in the same backend, and is committed.
func TestPostgreSQLTransactionOutlivesWhatCarriesIt(t *testing.T) {
	need.Program(t, "psql")
	w := newLasting(t)
	startPostgres(t, w.factory.Host())
	c := w.clients()[0]
	w.allow(t, forward{name: "sql", from: endpoint("tcp", c.entry, pgPort), to: endpoint("tcp", w.factory.Host().Addr(), pgPort)})
	table := psql(c.host, c.entry.String(), "--command", "create table lasting (id int primary key, behind text)")
	await.Success(t, table)
	session := converse(t, psql(c.host, c.entry.String()))
	session.ask("begin; select 'begun';", "begun")
	count := 0
	w.upheavals(t, func(behind string) {
		start := time.Now()
		count++
		session.ask(fmt.Sprintf("insert into lasting values (%d, '%s') returning id;", count, behind), fmt.Sprint(count))
		t.Logf("%s: a row after %v", behind, time.Since(start))
	})
	session.ask("commit; select 'committed';", "committed")
	if got, want := await.Success(t, psql(c.host, c.entry.String(), "--command", "select count(*) from lasting")), fmt.Sprintln(count); got != want {
		t.Errorf("the table has %q rows, want %q", got, want)
	}
}

// A subscriber gets every message over the connection that it made at first.
func TestMQTTSubscriptionOutlivesWhatCarriesIt(t *testing.T) {
	need.Program(t, "mosquitto", "mosquitto_sub", "mosquitto_pub")
	w := newLasting(t)
	config := w.plc.WriteFile("mosquitto.conf", "listener 1883 0.0.0.0\nallow_anonymous true\nlog_dest stderr\nlog_type all\n")
	broker := w.plc.Start(w.plc.Command("mosquitto", "-c", config).As("nobody"))
	await.Listening(t, w.plc, "tcp", 1883)
	w.allow(t, w.offer("mqtt", "tcp", 1883, endpoint("tcp", w.plc.Addr(), 1883))...)
	c := w.clients()[0]
	subscriber := c.host.Start(c.host.Command("mosquitto_sub", "-h", c.entry.String(), "-p", "1883", "-t", "line", "-q", "1", "-i", "lasting"))
	broker.WaitLog("Sending SUBACK to lasting")
	var want strings.Builder
	messages := 0
	w.upheavals(t, func(behind string) {
		start := time.Now()
		messages++
		fmt.Fprintln(&want, behind)
		await.Success(t, w.plc.Command("mosquitto_pub", "-h", "127.0.0.1", "-t", "line", "-q", "1", "-m", behind))
		subscriber.WaitLog(behind)
		// What is blocked on the way out only still comes in.
		await.Until(t, "acknowledged", func() error {
			if got := strings.Count(broker.Log(), "Received PUBACK from lasting"); got != messages {
				return fmt.Errorf("the broker has %d acknowledgements, want %d", got, messages)
			}
			return nil
		})
		t.Logf("%s: a message and its acknowledgement after %v", behind, time.Since(start))
	})
	if got := subscriber.Log(); got != want.String() {
		t.Errorf("the subscriber got %q, want %q", got, want.String())
	}
	if n := strings.Count(broker.Log(), " as lasting "); n != 1 {
		t.Errorf("the subscriber connected %d times, want once:\n%s", n, broker.Log())
	}
}

// One download arrives whole.
func TestDownloadOutlivesWhatCarriesIt(t *testing.T) {
	need.Program(t, "curl")
	size, rate := int64(100_000_000), "12M" // bytes a second, or it is over too soon
	if *full {
		size, rate = 1_000_000_000, "40M"
	}
	w := newLasting(t)
	want := startNginx(t, w.plc).put(t, "big", size)
	w.allow(t, w.offer("web", "tcp", 8080, endpoint("tcp", w.plc.Addr(), webPort))...)
	c := w.clients()[0]
	var came atomic.Int64
	sum := sha256.New()
	cmd := c.curl("--limit-rate", rate, c.url(8080, "big"))
	cmd.Stdout = io.MultiWriter(sum, writer(func(b []byte) { came.Add(int64(len(b))) }))
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.upheavals(t, func(behind string) {
		start, goal := time.Now(), came.Load()+size/25
		if goal >= size {
			t.Fatal("it is nearly over, so that the test shows nothing")
		}
		await.Until(t, "further when "+behind, func() error {
			if got := came.Load(); got < goal {
				return fmt.Errorf("%d of %d bytes have come", got, goal)
			}
			return nil
		})
		t.Logf("%s: %d bytes more after %v", behind, size/25, time.Since(start))
	})
	select {
	case err := <-ended:
		if exit, ok := err.(*exec.ExitError); ok {
			t.Fatalf("curl: %v: %s", exit, &said)
		}
	case <-time.After(3 * await.Patience):
		t.Fatalf("the download did not end; %d of %d bytes have come", came.Load(), size)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		t.Errorf("SHA-256 %s, want %s", got, want)
	}
}

// writer hands on what is written to it.
type writer func(b []byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}
