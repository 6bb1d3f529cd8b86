package faults

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// onSmallDisk moves the folder of a daemon that does not run to a file system of so many bytes. The daemon and its commands
// see it, the test does not.
func onSmallDisk(d *daemon.Daemon, size int) {
	d.Host().Run("sh", "-c", fmt.Sprintf(`
		cp -a "$0" "$0.copy" &&
		mount -t tmpfs -o size=%d,mode=700,uid=$(id -u %s),gid=$(stat -c %%g "$0") netport-lab "$0" &&
		cp -a "$0.copy/." "$0"`, size, daemon.User), d.Dir())
}

// fill leaves no room on a daemon's disk, and sweep makes room again.
func fill(d *daemon.Daemon) {
	d.Host().Run("sh", "-c", `cat /dev/zero >"$0/filler" 2>/dev/null; test $(df --output=avail "$0" | tail -n 1) = 0`, d.Dir())
}

func sweep(d *daemon.Daemon) { d.Host().Run("rm", filepath.Join(d.Dir(), "filler")) }

// many are forwards whose policy takes room.
func (w *world) many(prefix string) (list []forward) {
	for i := range 300 {
		list = append(list, forward{fmt.Sprintf("%s-%d", prefix, i), fmt.Sprintf("tcp://127.0.0.1:%d", 10_000+i), w.service("tcp", uint16(10_000+i))})
	}
	return list
}

// F33: the disks of all daemons are full. What runs goes on and new connections are served; a change that does not fit is
// refused and is not there afterwards, and each says what it cannot write. When there is room again all is written, by
// itself; the audit log says how much is missing, and a portal that is started without a server knows its grants.
func TestDaemonsOutliveFullDisks(t *testing.T) {
	const disk = 4 << 20
	w := newWorld(t)
	third := w.Portal(w.lab.Public("third"))
	// visits make records: a session of the third portal's for each.
	visits := fmt.Sprintf("[[forward]]\nname = \"visit\"\nfrom = \"third tcp://127.0.0.1:%d\"\nto = %q\n", otherEntry, "factory "+w.service("tcp", otherPort))
	apply := func(prefix string) {
		w.Apply(visits + w.policy(append(w.many(prefix), append(w.echoes(), w.other())...)...))
		w.laptop.WaitUp(prefix + "-299")
	}
	w.Apply(visits + w.policy(append(w.echoes(), w.other())...))
	third.WaitUp("visit")
	for _, d := range w.daemons() {
		d.Stop()
		onSmallDisk(d, disk)
	}
	w.Server.Start()
	w.relay.Start()
	w.factory.Start()
	w.laptop.Start()
	w.laptop.WaitUp("tcp")
	w.laptop.WaitUp("udp")
	w.laptop.WaitUp("other")
	ln := w.plc.Listen(otherPort)
	visit := func() {
		third.Restart()
		third.WaitUp("visit")
		client := third.Host().Dial("tcp", local(otherEntry))
		p := pair{client, await.Accept(t, ln)}
		p.alive(t)
		client.Close()
		p.service.Close()
	}
	visit()
	running := w.startTraffic()

	// The portals hear of a policy and of a revocation that they cannot keep.
	for _, d := range w.daemons() {
		if d != w.Server.Daemon {
			fill(d)
		}
	}
	marks := make(map[*daemon.Daemon]int)
	for _, d := range w.daemons() {
		marks[d] = d.Process().Mark()
	}
	apply("first")
	for _, p := range []*daemon.Portal{w.laptop, w.factory} {
		wantLogged(t, p.Daemon, marks[p.Daemon], "state not kept", "no space left on device", "will not know its grants")
	}
	w.connect(otherEntry, ln)

	// Nor can the server.
	fill(w.Server.Daemon)
	if out, err := w.TryApply(w.policy(w.many("second")...)); err == nil || !strings.Contains(out, "no space left on device") || strings.Count(out, "\n") != 1 {
		t.Errorf("a policy that does not fit: %v, it says %q", err, out)
	}
	await.Until(t, "out of room for records", func() error {
		visit()
		return logged(w.Server.Daemon, marks[w.Server.Daemon], "audit record lost", "no space left on device")
	})
	if show := w.Server.Run("policy", "show"); !strings.Contains(show, "first-299") || strings.Contains(show, "second-") {
		t.Errorf("after a refused policy the server has\n%s", show)
	}
	w.connect(otherEntry, ln)

	for _, d := range w.daemons() {
		sweep(d)
	}
	apply("last")
	for _, p := range []*daemon.Portal{w.laptop, w.factory} {
		wantLogged(t, p.Daemon, marks[p.Daemon], "state is kept again")
	}
	await.Until(t, "audit works again", func() error {
		visit()
		return logged(w.Server.Daemon, marks[w.Server.Daemon], "audit works again")
	})
	if out := w.Server.Run("audit", "--last", "10000"); !strings.Contains(out, "lost") {
		t.Errorf("the audit log does not tell of what is missing:\n%s", out)
	}
	w.Server.Run("audit", "verify")
	running.end()

	for _, d := range w.daemons() {
		select {
		case <-d.Process().Done():
			t.Errorf("%s has ended", d.Name())
		default:
		}
	}
	w.laptop.Stop()
	w.factory.Stop()
	w.Server.Kill()
	w.factory.Launch()
	w.laptop.Launch()
	w.laptop.WaitUp("last-299")
	w.connect(otherEntry, ln)
	w.Server.Start()
	if show := w.Server.Run("policy", "show"); !strings.Contains(show, "last-299") {
		t.Error("the server has lost the policy that it took last")
	}
}

// F35: on a disk that cannot be written no daemon starts, and each says so in one line; where it can be written again it
// starts with what it had.
func TestDaemonsRefuseReadOnlyDisks(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	for _, d := range w.daemons() {
		d.Stop()
		onSmallDisk(d, 4<<20)
		d.Host().Run("mount", "-o", "remount,ro", d.Dir())
		if err := wantRefusal(d, "read-only file system", d.Dir()); err != nil {
			t.Error(err)
		}
	}
	for _, d := range w.daemons() {
		d.Host().Run("mount", "-o", "remount,rw", d.Dir())
	}
	w.Server.Start()
	w.relay.Start()
	w.factory.Start()
	w.laptop.Start()
	w.laptop.WaitUp("other")
	w.connect(otherEntry, w.plc.Listen(otherPort))
}

// wantRefusal starts a daemon that has to end by itself with status 1; its last line has the texts.
func wantRefusal(d *daemon.Daemon, texts ...string) error {
	out, err := d.Command("run").CombinedOutput()
	last := lastLine(string(out))
	if code := exitCode(err); code != 1 || !strings.HasPrefix(last, "netport-") {
		return fmt.Errorf("%s: ended with %d and said %q, want 1 and a reason", d.Name(), code, last)
	}
	var missing error
	for _, text := range texts {
		if !strings.Contains(last, text) {
			missing = errors.Join(missing, fmt.Errorf("%s: its last line %q has no %q", d.Name(), last, text))
		}
	}
	return missing
}
