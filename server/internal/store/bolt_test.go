package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func create(t *testing.T) (*Bolt, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "state.db")
	s, err := Create(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, file
}

func commit(t *testing.T, s Store, c Change) uint64 {
	t.Helper()
	revision, err := s.Commit(c)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestCommitChangesAllKeysOrNone(t *testing.T) {
	s, file := create(t)
	first := commit(t, s, Change{Put: map[string][]byte{"a/1": []byte("one"), "a/2": []byte("two"), "b": nil}})
	second := commit(t, s, Change{If: map[string]uint64{"a/1": first}, Put: map[string][]byte{"a/1": []byte("new")}, Delete: []string{"b", "absent"}})
	if second <= first {
		t.Fatalf("revision %d after %d", second, first)
	}
	for _, stale := range []map[string]uint64{{"a/1": first}, {"absent": first}, {"a/2": 0}, {"a/1": second, "a/2": second}} {
		_, err := s.Commit(Change{If: stale, Put: map[string][]byte{"a/2": []byte("lost")}, Delete: []string{"a/1"}})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("commit upon %v: %v, want ErrConflict", stale, err)
		}
	}
	want := []Entry{{"a/1", []byte("new"), second}, {"a/2", []byte("two"), first}}
	check := func(s Store) {
		t.Helper()
		got, err := s.List("a/")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("entries (-want +got):\n%s", d)
		}
		if e, err := s.Get("b"); err != nil || e.Revision != 0 {
			t.Errorf("deleted entry: %v, %v", e, err)
		}
	}
	check(s)
	s.Close()
	again, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	check(again)
}

func TestSecondProcessIsKeptOut(t *testing.T) {
	_, file := create(t)
	if _, err := Open(file); !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v, want ErrInUse", err)
	}
	if _, err := Create(file); err == nil {
		t.Fatal("create overwrote a state")
	}
}

// fill makes a state with a few commits, so that pages were freed and reused.
func fill(t *testing.T) ([]byte, []Entry) {
	t.Helper()
	s, file := create(t)
	for i := range 4 {
		put := make(map[string][]byte)
		for j := range 12 {
			put[fmt.Sprintf("permission/%02d-%d", j, i%2)] = bytes.Repeat([]byte{byte(i), byte(j)}, 60)
		}
		commit(t, s, Change{Put: put, Delete: []string{fmt.Sprintf("permission/%02d-1", i)}})
	}
	want, err := s.List("")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b, want
}

// openDamaged opens a state that was changed behind our back. It must be
// refused in one line, or be whole.
func openDamaged(t *testing.T, b []byte, want []Entry, what string) (refused bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(file)
	if err != nil {
		if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, file) {
			t.Errorf("%s: error is not one line that names the file: %q", what, text)
		}
		return true
	}
	defer s.Close()
	got, err := s.List("")
	if err != nil {
		t.Errorf("%s: list: %v", what, err)
	}
	if !reflect.DeepEqual(got, want) { // much faster than cmp.Diff, and there are hundreds
		t.Fatalf("%s: opened with other content:\n%s", what, cmp.Diff(want, got))
	}
	return false
}

func TestDamagedStateIsRefused(t *testing.T) {
	whole, want := fill(t)
	openDamaged(t, whole, want, "undamaged")
	refused := 0
	for at := 0; at < len(whole); at += 64 {
		b := bytes.Clone(whole)
		b[at+rand.IntN(64)] ^= 1 << rand.IntN(8)
		if openDamaged(t, b, want, fmt.Sprintf("a bit flipped in bytes %d to %d", at, at+63)) {
			refused++
		}
	}
	// Free pages hold nothing; the rest of the file does.
	if refused < 20 {
		t.Errorf("%d flips were noticed: the test flips bits that nothing depends on", refused)
	}
}

// Every number in a page's header and in its first elements is followed by
// bbolt: a wrong one once took all memory of the machine.
func TestEveryBitOfAPageIsChecked(t *testing.T) {
	whole, want := fill(t)
	pageSize := os.Getpagesize()
	for at := 0; at < len(whole); at++ {
		if at%pageSize >= pageHeader+2*pageElement {
			continue
		}
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			openDamaged(t, b, want, fmt.Sprintf("bit %d of byte %d flipped", bit, at))
		}
	}
}

func TestTruncatedStateIsRefused(t *testing.T) {
	whole, want := fill(t)
	for n := 0; n < len(whole); n += 512 {
		if !openDamaged(t, whole[:n], want, fmt.Sprintf("cut to %d bytes", n)) {
			t.Logf("cut to %d of %d bytes: only free pages were lost", n, len(whole))
		}
	}
}

func TestOlderStatePageIsNotFallenBackTo(t *testing.T) {
	whole, want := fill(t)
	for page := range 2 {
		b := bytes.Clone(whole)
		b[page*os.Getpagesize()+metaAt+20] ^= 1
		if !openDamaged(t, b, want, "broken meta page") {
			t.Errorf("a state whose meta page %d is broken was opened", page)
		}
	}
}

func TestStateThatIsNoneIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := Open(filepath.Join(dir, "absent")); err == nil {
		t.Error("a missing file was opened")
	}
	if _, err := os.Stat(filepath.Join(dir, "absent")); err == nil {
		t.Error("open made the file it did not find")
	}
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("hello\n"), "zeros": make([]byte, 65536)} {
		if !openDamaged(t, b, nil, name) {
			t.Errorf("%s: was opened", name)
		}
	}
}

// TestMain lets the test binary be the process that is killed while it writes.
func TestMain(m *testing.M) {
	if file := os.Getenv("NETPORT_STORE_WRITER"); file != "" {
		os.Exit(writer(file))
	}
	if file := os.Getenv("NETPORT_STORE_FILLER"); file != "" {
		os.Exit(writeUntilFull(file))
	}
	os.Exit(m.Run())
}

// writer makes one change after the other and prints the number of each that
// was acknowledged.
func writer(file string) int {
	s, err := Open(file)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	e, err := s.Get("generation")
	if err != nil {
		return 1
	}
	var n int
	fmt.Sscan(string(e.Value), &n)
	for fmt.Println("open"); ; {
		n++
		if _, err := s.Commit(generation(n)); err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println(n)
	}
}

// generation is a change that touches many keys at once.
func generation(n int) Change {
	c := Change{Put: map[string][]byte{"generation": fmt.Append(nil, n)}}
	for i := range 50 {
		c.Put[fmt.Sprintf("key/%d/%d", n, i)] = bytes.Repeat([]byte{byte(n)}, 300)
		c.Delete = append(c.Delete, fmt.Sprintf("key/%d/%d", n-1, i))
	}
	return c
}

func TestStateIsOldOrNewAfterSIGKILL(t *testing.T) {
	s, file := create(t)
	commit(t, s, generation(0))
	s.Close()
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NETPORT_STORE_WRITER="+file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill it somewhere in the write that follows the k-th acknowledgement.
		k, acknowledged := 1+rand.IntN(5), 0
		for n := 0; n < k; {
			var line string
			if _, err := fmt.Fscanln(out, &line); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(line, &acknowledged); err == nil {
				n++
			}
		}
		for range rand.IntN(30000) { // some microseconds
		}
		cmd.Process.Kill()
		for { // what it acknowledged before it died counts, too
			var line string
			if _, err := fmt.Fscanln(out, &line); err != nil {
				break
			}
			fmt.Sscan(line, &acknowledged)
		}
		cmd.Wait()
		checkGeneration(t, file, acknowledged, round)
	}
}

func checkGeneration(t *testing.T, file string, acknowledged, round int) {
	t.Helper()
	s, err := Open(file)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer s.Close()
	e, err := s.Get("generation")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	fmt.Sscan(string(e.Value), &n)
	if n < acknowledged || n > acknowledged+1 {
		t.Fatalf("round %d: generation %d is there, %d was acknowledged", round, n, acknowledged)
	}
	entries, err := s.List("key/")
	if err != nil {
		t.Fatal(err)
	}
	want := generation(n).Put
	if len(entries) != len(want)-1 {
		t.Fatalf("round %d: %d keys, want %d", round, len(entries), len(want)-1)
	}
	for _, e := range entries {
		if !bytes.Equal(e.Value, want[e.Key]) {
			t.Fatalf("round %d: key %s of another generation", round, e.Key)
		}
	}
}
