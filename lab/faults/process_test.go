package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
)

// cpuTime is the processor time that a daemon has used.
func cpuTime(t testing.TB, d *daemon.Daemon) time.Duration {
	t.Helper()
	const utime, stime = 11, 12 // behind the program's name, which may hold anything
	stat := procFile(t, d, "stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+2:])
	var ticks int64
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, the same on every Linux
	return time.Duration(ticks) * time.Second / perSecond
}

func procFile(t testing.TB, d *daemon.Daemon, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", d.Process().PID(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// limitDescriptors lets a running daemon have no more than so many, until the function it returns is called. It acts as
// the daemon's user, who may do that without any right.
func limitDescriptors(t testing.TB, d *daemon.Daemon, most uint64) (lift func()) {
	t.Helper()
	need.Program(t, "prlimit")
	set := func(soft string) {
		t.Helper()
		cmd := d.Host().Command("prlimit", "--pid", strconv.Itoa(d.Process().PID()), "--nofile="+soft+":").As(daemon.User)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("limit the descriptors of %s: %v\n%s", d.Name(), err, out)
		}
	}
	was := softLimit(t, d)
	set(strconv.FormatUint(most, 10))
	return func() { set(was) }
}

// softLimit is how many descriptors a daemon may have, as it is.
func softLimit(t testing.TB, d *daemon.Daemon) string {
	t.Helper()
	for line := range strings.Lines(procFile(t, d, "limits")) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("%s: no limit of open files", d.Name())
	return ""
}
