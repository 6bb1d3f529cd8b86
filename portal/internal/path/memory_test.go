package path

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/identity"
)

// full is a memory with a fact of every kind, in a network.
func full(place *string) *memory {
	m := newMemory(func() string { return *place })
	pair := pairing{"relay-1", "factory"}
	m.rememberSplice("relay-1", SharedTLS)
	m.failed(packetBad, pair, true)
	m.failed(quicBad, pair, false)
	m.won(pair, true)
	m.suspect("relay-1")
	m.smallWorked("relay-1")
	m.learn(finding{lost: 15 * time.Second}, time.Now())
	return m
}

// whole cuts the times of facts to what a file holds.
func whole(facts map[topic]fact) map[topic]fact {
	out := maps.Clone(facts)
	for t, f := range out {
		if !f.until.IsZero() {
			f.until = time.Unix(f.until.Unix(), 0)
		}
		if !f.hold.again.IsZero() {
			f.hold.again = time.Unix(f.hold.again.Unix(), 0)
		}
		out[t] = f
	}
	return out
}

func TestMemoryOutlivesThePortal(t *testing.T) {
	place := "192.0.2.1 192.0.2.0/24"
	m := full(&place)
	name := filepath.Join(t.TempDir(), "networks.json")
	if err := m.save(name, 77); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	again := newMemory(m.network)
	counter, err := again.load(name)
	if err != nil || counter != 77 {
		t.Fatalf("counter %d, %v", counter, err)
	}
	if got, want := fmt.Sprint(again.facts), fmt.Sprint(whole(m.facts)); got != want || len(m.facts) != 11 {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

// TestSharedPortIsNoHabit: however often it wins, the ports of sessions come first again after an hour; these stay.
func TestSharedPortIsNoHabit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(func() string { return "here" })
		began := time.Now()
		for first := SharedPort; first == SharedPort && time.Since(began) < 2*sharedTime; first = m.spliceFirst("relay-1") {
			m.rememberSplice("relay-1", SharedPort)
			time.Sleep(7 * time.Minute)
		}
		if took := time.Since(began); took < sharedTime || took > sharedTime+7*time.Minute || m.spliceFirst("relay-2") != SessionPort {
			t.Errorf("session ports come first again after %v, want %v", took, sharedTime)
		}
		m.rememberSplice("relay-1", SharedPort)
		m.rememberSplice("relay-1", SessionPort)
		time.Sleep(1000 * time.Hour)
		if _, known := m.recall(m.ofRelay(spliceMode, "relay-1")); !known || m.spliceFirst("relay-1") != SessionPort {
			t.Error("it is forgotten that session ports are open")
		}
	})
}

func TestFinderStartsWithWhatItsFileSays(t *testing.T) {
	a := newAuthority(t)
	name := filepath.Join(t.TempDir(), "networks.json")
	place := ""
	m := full(&place)
	later := uint64(time.Now().Add(24 * time.Hour).UnixMilli()) // the clock was set back since
	if err := m.save(name, later); err != nil {
		t.Fatal(err)
	}
	f := NewFinder(Config{Credentials: a.Credentials(identity.Portal, "ann"), State: name, Log: slog.New(slog.DiscardHandler)})
	if got := plan(withUDPTo(t, f)); got != allAtOnce {
		t.Errorf("the first carrier: %s, want %s", got, allAtOnce)
	}
	if f.memory.interval() != 7*time.Second || f.memory.spliceFirst("relay-1") != SharedTLS || !f.memory.small("relay-1") {
		t.Error("something is not known any more")
	}
	if c := f.counter(); c <= later {
		t.Errorf("counter %d, one of %d was used before", c, later)
	}
}

func TestFinderWritesDownWhatItLearns(t *testing.T) {
	a := newAuthority(t)
	name := filepath.Join(t.TempDir(), "networks.json")
	f := NewFinder(Config{Credentials: a.Credentials(identity.Portal, "ann"), State: name, Log: slog.New(slog.DiscardHandler)})
	t.Run("while it runs", func(t *testing.T) {
		b := &authority{t, a.Authority}
		b.run(f)
		f.memory.rememberSplice("relay-1", SharedPort)
	})
	m := newMemory(func() string { return "" })
	if _, err := m.load(name); err != nil || m.spliceFirst("relay-1") != SharedPort {
		t.Errorf("read %v, %v", m.facts, err)
	}
}

// A file that is cut, or in which a bit has flipped, is used as far as it says
// something, or not at all; it is never more than a hint.
func TestDamagedFileIsNoHarm(t *testing.T) {
	place := "192.0.2.1 192.0.2.0/24"
	m := full(&place)
	name := filepath.Join(t.TempDir(), "networks.json")
	if err := m.save(name, 77); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	try := func(b []byte) (*memory, error) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m := newMemory(func() string { return place })
		_, err := m.load(name)
		if err != nil && len(m.facts) > 0 {
			t.Errorf("%v, and %d facts were taken", err, len(m.facts))
		}
		for topic, f := range m.facts {
			if f.until.After(time.Now().Add(doubtTime)) || f.hold.interval() < steps[0] {
				t.Errorf("took %v: %+v", topic, f)
			}
		}
		return m, err
	}
	for i := range good[:len(good)-2] {
		if _, err := try(good[:i]); err == nil {
			t.Errorf("%d of %d bytes were taken", i, len(good))
		}
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		try(b)
	}
	for _, b := range []string{
		`{"version":2,"facts":[]}`,
		`{"version":1,"facts":[{"what":"splice","mode":7}]}`,
		`{"version":1,"facts":` + strings.Repeat(" ", maxFile) + `[]}`,
	} {
		if _, err := try([]byte(b)); err == nil {
			t.Errorf("%.60s was taken", b)
		}
	}
	future := time.Now().Add(100 * 365 * 24 * time.Hour).Unix()
	m, err = try(fmt.Appendf(nil, `{"version":1,"facts":[
		{"what":"quic","network":"n","relay":"r","peer":"p","until":%d},
		{"what":"packet","network":"n","relay":"r","peer":"old","until":1},
		{"what":"splice","network":"n","relay":"r","mode":"relay-udp"},
		{"what":"hold","network":"n"},
		{"what":"hold","network":"m","hold":{"interval":-1}},
		{"what":"hold","network":"o","hold":{"interval":15000,"failed":30000,"wait":-7,"again":%[1]d}},
		{"what":"weather","network":"n"},
		{"what":"first","network":"%s"}]}`, future, strings.Repeat("n", maxName+1)))
	if err != nil || len(m.facts) != 2 {
		t.Errorf("%v of eight facts were taken, want those of QUIC and of network o: %v", m.facts, err)
	}
	if h := m.facts[topic{what: udpHold, network: "o"}].hold; h.again.After(time.Now().Add(firstDelay)) {
		t.Errorf("a longer silence is not tried before %v", h.again)
	}
}

func TestFileOfTheFullestMemoryCanBeRead(t *testing.T) {
	m := newMemory(func() string { return strings.Repeat("n", maxName) })
	for i := range maxRemembered / 2 {
		m.failed(packetBad, pairing{strings.Repeat("r", 63), fmt.Sprintf("%063d", i)}, true)
	}
	name := filepath.Join(t.TempDir(), "networks.json")
	if err := m.save(name, 1); err != nil {
		t.Fatal(err)
	}
	again := newMemory(m.network)
	if _, err := again.load(name); err != nil || len(again.facts) != maxRemembered {
		t.Errorf("%d facts of %d: %v", len(again.facts), maxRemembered, err)
	}
}
