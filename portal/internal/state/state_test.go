package state

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// full is something of everything.
func full() Kept {
	addr := netip.MustParseAddr("192.0.2.1")
	return Kept{
		Grants: Grants{
			Stamp: []ed25519.PublicKey{bytes.Repeat([]byte{7}, ed25519.PublicKeySize)}, Completed: wire.GrantsComplete{Version: 3, Signature: [64]byte{5}}, Known: true,
			Held: [][]byte{[]byte("a grant"), []byte("another")}, Removed: []wire.GrantID{{1}, {2}},
		},
		Tickets: []wire.Ticket{{
			Session: ticket.Session(wire.Secret{1}, "ann", "bo", time.Unix(1e9, 0)), Leg: 1, Secret: wire.Secret{3}, Peer: "bo", Transports: wire.TransportUDP,
			Relay: wire.RelayAccess{Name: "relay-1", Addresses: []netip.Addr{addr}, SharedUDP: 3478},
		}},
		Servers:  []string{"a.example", "192.0.2.9:443"},
		Hosts:    []control.Host{{Name: "a.example", Addrs: []netip.Addr{addr, netip.MustParseAddr("2001:db8::1")}}},
		Networks: []Network{{Name: "192.0.2.254 192.0.2.0/24", Silence: control.Learned{Held: time.Minute, Broken: time.Hour, At: time.Unix(1e9, 0)}, Way: control.Way{Address: "a.example:80"}}, {Name: "another", Way: control.Way{Address: "[2001:db8::1]:443", UDP: true}}},
	}
}

// log keeps what is logged.
func log(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// save runs a File that is stopped at once.
func save(t *testing.T, f *File, k Kept) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx, func() Kept { return k }); err != nil {
		t.Error(err)
	}
}

func TestWhatIsKeptIsThereAfterwards(t *testing.T) {
	dir := t.TempDir()
	var said bytes.Buffer
	f, none := Open(dir, log(&said))
	if !cmp.Equal(none, Kept{}) || said.Len() > 0 {
		t.Errorf("a portal's first start: %+v, and it says %s", none, &said)
	}
	left := filepath.Join(dir, "."+name+".123")
	if err := os.WriteFile(left, []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	save(t, f, full())
	f, got := Open(dir, log(&said))
	if diff := cmp.Diff(full(), got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed process left is still there")
	}
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	save(t, f, got)
	if after, _ := os.Stat(filepath.Join(dir, name)); !os.SameFile(info, after) {
		t.Error("written again, though nothing has changed")
	}
	if said.Len() > 0 {
		t.Errorf("it says %s", &said)
	}
}

// TestDamagedFileIsLeftAlone: cut anywhere, one bit flipped anywhere, of another
// program or version, or written by anybody: the portal starts without it, says so
// in one line, and keeps the next state.
func TestDamagedFileIsLeftAlone(t *testing.T) {
	whole := encode(full())
	check := func(what string, b []byte) {
		t.Helper()
		if k, err := decode(b); err == nil {
			t.Errorf("%s: read as %+v", what, k)
		}
	}
	for i := range whole {
		check("cut", whole[:i])
		for bit := range 8 {
			flipped := slices.Clone(whole)
			flipped[i] ^= 1 << bit
			check("flipped", flipped)
		}
	}
	check("longer", append(slices.Clone(whole), 0))
	sealed := func(b []byte) []byte {
		sum := sha256.Sum256(b)
		return append(slices.Clone(b), sum[:]...)
	}
	body := whole[:len(whole)-sha256.Size]
	later := slices.Clone(body)
	later[len(magic)-1]++
	dir := t.TempDir()
	for what, file := range map[string]struct {
		b    []byte
		mode os.FileMode
		want string
	}{
		"a later version":  {sealed(later), 0o600, "it is of version 3, this program reads version 2"},
		"another program":  {[]byte("#!/bin/sh\necho this is something else, and longer than a header\n"), 0o600, "no file of this program"},
		"writable by all":  {whole, 0o622, "lets others write it; run: chmod 600"},
		"cut messages":     {sealed(body[:len(body)-1]), 0o600, "cut or was altered"},
		"a portal's words": {sealed(wire.AppendMessage([]byte(magic), wire.OpenSession{Request: 1, Peer: "x"})), 0o600, "wrong direction"},
		"empty":            {nil, 0o600, "cut or was altered"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, file.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, file.mode); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		f, kept := Open(dir, log(&said))
		if !cmp.Equal(kept, Kept{}) {
			t.Errorf("%s: read as %+v", what, kept)
		}
		if s := said.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, file.want) || !strings.Contains(s, path) {
			t.Errorf("%s: it says %q, want one line with %q", what, s, file.want)
		}
		save(t, f, full())
		if _, kept := Open(dir, log(&said)); len(kept.Tickets) != 1 {
			t.Errorf("%s: nothing is kept afterwards", what)
		}
		os.Remove(path)
	}
	// A message that a later program has put there is no damage.
	newer := wire.AppendMessage(slices.Clone(body), message{0x8fff, []byte{1}})
	if k, err := decode(sealed(newer)); err != nil || len(k.Tickets) != 1 {
		t.Errorf("with a message of a later program: %+v, %v", k, err)
	}
}

// TestWritesAreGathered: a policy of many grants is written once, what goes on
// changing at most every few seconds, and the last word before the end counts.
func TestWritesAreGathered(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, _ := Open(dir, slog.New(slog.DiscardHandler))
		var mu sync.Mutex
		k := full()
		asked := 0
		collect := func() Kept {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return k
		}
		change := func(n uint64) {
			mu.Lock()
			k.Grants.Completed.Version = n
			mu.Unlock()
			f.Changed()
		}
		stored := func() uint64 {
			_, kept := Open(dir, slog.New(slog.DiscardHandler))
			return kept.Grants.Completed.Version
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { f.Run(ctx, collect) })
		change(10)
		time.Sleep(gather)
		synctest.Wait()
		if got := stored(); got != 10 {
			t.Errorf("%v after a change: stored %d", gather, got)
		}
		for n := range uint64(600) {
			change(n)
			time.Sleep(100 * time.Millisecond)
		}
		change(77)
		cancel()
		running.Wait()
		if asked > 16 {
			t.Errorf("written %d times in a minute", asked)
		}
		if got := stored(); got != 77 {
			t.Errorf("at the end: stored %d, want 77", got)
		}
	})
}

// TestFullDiskIsSaidOnceAndOvercome: while the folder cannot be written the old
// file stays whole, and afterwards the new one is written without a restart.
func TestFullDiskIsSaidOnceAndOvercome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	away := dir + ".away"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		f, _ := Open(dir, log(&said))
		save(t, f, full())
		if err := os.Rename(dir, away); err != nil { // nothing can be written there
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		k := full()
		k.Grants.Completed.Version = 99
		running.Go(func() { f.Run(ctx, func() Kept { return k }) })
		f.Changed()
		time.Sleep(10 * retry)
		synctest.Wait()
		if s := said.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "state not kept") {
			t.Errorf("it says %q, want one line", s)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		if _, kept := Open(dir, log(&said)); kept.Grants.Completed.Version != 3 {
			t.Errorf("the old file holds %+v", kept.Grants)
		}
		time.Sleep(2 * retry)
		synctest.Wait()
		if _, kept := Open(dir, log(&said)); kept.Grants.Completed.Version != 99 {
			t.Errorf("once it can be written: %+v", kept.Grants)
		}
		if s := said.String(); strings.Count(s, "\n") != 2 || !strings.Contains(s, "state is kept again") {
			t.Errorf("it says %q", s)
		}
		cancel()
		running.Wait()
	})
}

func TestFileIsBounded(t *testing.T) {
	var k Kept
	for range maxGrants + 5 {
		k.Grants.Held = append(k.Grants.Held, make([]byte, 100))
	}
	got, err := decode(encode(k))
	if err != nil || len(got.Grants.Held) != maxGrants {
		t.Errorf("%d grants of %d, %v", len(got.Grants.Held), len(k.Grants.Held), err)
	}
	if largest := maxGrants*(wire.MaxGrant+100) + maxTickets*1000; largest > maxFile {
		t.Errorf("a full file may have %d bytes, and %d are read", largest, maxFile)
	}
}

func FuzzDecode(f *testing.F) {
	whole := encode(full())
	f.Add(whole[len(magic) : len(whole)-sha256.Size])
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parse(b)
		if err != nil {
			return
		}
		// What was read is read again the same once it has been written.
		again, err := decode(encode(k))
		if diff := cmp.Diff(k, again, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}
