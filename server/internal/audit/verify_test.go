package audit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// keep writes one record for each name and returns the folder.
func keep(t *testing.T, folder string, limit int64, names ...string) {
	t.Helper()
	l := New(folder, quiet())
	l.limit = limit
	for _, n := range names {
		l.Write(Record{Event: "session", Answer: Granted, Portal: n})
		l.Flush()
	}
	l.close()
}

func verify(t *testing.T, folder, head string) Verdict {
	t.Helper()
	v, err := Verify(folder, head)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func numbered(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("p%d", i))
	}
	return names
}

func TestChainGoesOnOverRestartsAndFiles(t *testing.T) {
	folder := t.TempDir()
	if v := verify(t, folder, ""); v.Records != 0 || v.Broken != "" || v.Head != "" {
		t.Errorf("nothing was written: %+v", v)
	}
	keep(t, folder, 1<<20, "a", "b")
	keep(t, folder, 1<<20, "c")
	v := verify(t, folder, "")
	if v.Records != 3 || !v.Begins || v.Broken != "" {
		t.Errorf("after a restart: %+v", v)
	}
	noted := v.Head
	// A restart between two files: the first of them was just put aside.
	for _, n := range numbered(12) {
		keep(t, folder, 500, n)
	}
	v = verify(t, folder, noted)
	if v.Records != 15 || !v.Begins || v.Broken != "" || !v.Noted {
		t.Errorf("over files: %+v", v)
	}
	if err := os.Remove(fileOf(folder, 0)); err != nil { // all of the current file
		t.Fatal(err)
	}
	keep(t, folder, 500, "after")
	if v := verify(t, folder, ""); v.Broken != "" || v.Records >= 15 {
		t.Errorf("goes on from the file put aside: %+v", v)
	}
	keep(t, folder, 500, numbered(100)...)
	v = verify(t, folder, noted)
	if v.Begins || v.Noted || v.Broken != "" || v.Records < 8 {
		t.Errorf("with the oldest files out: %+v", v)
	}
}

// TestNoLineIsAlteredUnseen changes each byte of a log, one at a time.
func TestNoLineIsAlteredUnseen(t *testing.T) {
	folder := t.TempDir()
	keep(t, folder, 1<<20, numbered(4)...)
	head := verify(t, folder, "").Head
	good, err := os.ReadFile(fileOf(folder, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(fileOf(folder, 0), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		v := verify(t, folder, head)
		// In the last line only the noted head tells.
		if v.Broken == "" && v.Noted {
			t.Fatalf("byte %d of %d (%q) changed: %+v", i, len(good), good[max(0, i-10):i+1], v)
		}
	}
}

func TestWhereTheChainBreaksIsNamed(t *testing.T) {
	lines := func(b []byte) [][]byte { return bytes.SplitAfter(b, []byte("\n"))[:5] }
	for _, tt := range []struct {
		name   string
		change func(l [][]byte) [][]byte
		want   string // of Broken
		noted  bool   // the head of before is still there
	}{
		{"nothing", func(l [][]byte) [][]byte { return l }, "", true},
		{"a line removed", func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) }, "audit.log:3: it does not follow audit.log:2", false},
		{"two lines exchanged", func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }, "audit.log:2: it does not follow audit.log:1", false},
		{"a line doubled", func(l [][]byte) [][]byte { return slices.Insert(l, 2, l[1]) }, "audit.log:3: it does not follow audit.log:2", false},
		{"a line altered", func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte("granted"), []byte("refused"), 1)
			return l
		}, "audit.log:5: it does not follow audit.log:4", false},
		{"text added", func(l [][]byte) [][]byte { return slices.Insert(l, 1, []byte("hello\n")) }, "audit.log:2: it is no record", false},
		{"an empty line", func(l [][]byte) [][]byte { return slices.Insert(l, 1, []byte("\n")) }, "audit.log:2: it is no record", false},
		{"a line of 1 MB", func(l [][]byte) [][]byte {
			return slices.Insert(l, 1, append(bytes.Repeat([]byte("a"), 1<<20), '\n'))
		}, "audit.log:2: it is longer than any record", false},
		{"the end cut off", func(l [][]byte) [][]byte { return l[:3] }, "", false},
		{"the begin cut off", func(l [][]byte) [][]byte { return l[2:] }, "", true},
	} {
		folder := t.TempDir()
		keep(t, folder, 1<<20, numbered(5)...)
		head := verify(t, folder, "").Head
		b, err := os.ReadFile(fileOf(folder, 0))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fileOf(folder, 0), bytes.Join(tt.change(lines(b)), nil), 0o600); err != nil {
			t.Fatal(err)
		}
		v := verify(t, folder, head)
		if !strings.HasPrefix(v.Broken, tt.want) || tt.want == "" && v.Broken != "" || v.Noted != tt.noted {
			t.Errorf("%s: %+v, want broken %q, noted %t", tt.name, v, tt.want, tt.noted)
		}
		if tt.name == "the begin cut off" && v.Begins {
			t.Errorf("%s, and yet it begins the log", tt.name)
		}
	}
}

// A crash in mid-write leaves half a line. It is taken out, and noted.
func TestTornLineIsTakenOutAndNoted(t *testing.T) {
	folder := t.TempDir()
	keep(t, folder, 1<<20, "a")
	whole, err := os.ReadFile(fileOf(folder, 0))
	if err != nil {
		t.Fatal(err)
	}
	half := whole[:len(whole)/2]
	if err := os.WriteFile(fileOf(folder, 0), append(slices.Clone(whole), half...), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, folder, ""); !v.Open || v.Broken != "" || v.Records != 1 {
		t.Errorf("before it is mended: %+v", v)
	}
	keep(t, folder, 1<<20, "b")
	if v := verify(t, folder, ""); v.Open || v.Broken != "" || v.Records != 3 || v.Torn != 1 {
		t.Errorf("mended: %+v", v)
	}
	list, err := Tail(folder, 10, time.Time{})
	if err != nil || len(list) != 3 || list[1].Answer != Torn || list[1].Detail != string(half[:min(len(half), maxTorn)]) || list[2].Portal != "b" {
		t.Errorf("records %+v, %v", list, err)
	}
}

func TestLinesArePrintable(t *testing.T) {
	folder := t.TempDir()
	odd := "a\x1b[2J\u202egnp\u2066.\u007f\u0085\u200b\U000e0041\xff\n\u2028"
	keep(t, folder, 1<<20, odd)
	b, err := os.ReadFile(fileOf(folder, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range bytes.TrimSuffix(b, []byte("\n")) {
		if c < ' ' || c > '~' {
			t.Fatalf("byte %#x in %q", c, b)
		}
	}
	if got := portals(t, folder, 1, time.Time{}); got[0] != strings.ReplaceAll(odd, "\xff", "\ufffd") {
		t.Errorf("read back %q, want %q", got, odd)
	}
	if v := verify(t, folder, ""); v.Broken != "" {
		t.Error(v.Broken)
	}
}

// A verdict is right at any moment, also while lines are written and files put
// aside.
func TestVerifyBesideTheWriter(t *testing.T) {
	folder := t.TempDir()
	l := New(folder, quiet())
	l.limit = 2000
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	running.Go(func() {
		for ctx.Err() == nil {
			if len(l.queue) < 100 {
				l.Write(Record{Event: "session", Portal: "ann"})
			}
		}
	})
	for range 300 {
		v := verify(t, folder, "")
		if v.Broken != "" {
			t.Errorf("%+v", v)
			break
		}
	}
	cancel()
	running.Wait()
}
