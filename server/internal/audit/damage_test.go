package audit

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// restart runs a log until it has written one more record, and returns what it knows of
// damage and what it has logged.
func restart(t *testing.T, folder, portal string) (damage, logged string) {
	t.Helper()
	var text bytes.Buffer
	l := New(folder, slog.New(slog.NewTextHandler(&text, nil)))
	l.Write(Record{Event: "session", Answer: Granted, Portal: portal})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.Follow()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return l.Damage(), text.String()
}

// TestDamageIsSaidAtTheStartAndTheChainBegunAnew: nothing of what stands in the files is
// lost, and what is altered afterwards is found again.
func TestDamageIsSaidAtTheStartAndTheChainBegunAnew(t *testing.T) {
	garbage := string(bytes.Repeat([]byte{0}, 1000))
	foreign := strings.Repeat("x", 3*maxLine)
	for _, tt := range []struct {
		name   string
		damage func(b string) string
		want   string // of Damage
	}{
		{"a line altered", func(b string) string { return strings.Replace(b, "p2", "px", 1) }, "audit.log:4: it does not follow"},
		{"a line removed", func(b string) string {
			l := strings.SplitAfter(b, "\n")
			return strings.Join(append(l[:1], l[2:]...), "")
		}, "audit.log:2: it does not follow"},
		{"the last line no record", func(b string) string { return b[:len(b)-100] + "\n" }, "audit.log:5: it is no record"},
		{"nothing but a line", func(string) string { return "hello\n" }, "audit.log:1: it is no record"},
		{"a line of 1 MB", func(b string) string { return strings.Repeat("a", 1<<20) + "\n" + b }, "audit.log:1: it is longer than any record"},
		{"zeros at the end", func(b string) string { return b + garbage }, "audit.log.1: what is at its end"},
		{"nothing but zeros", func(string) string { return garbage }, "audit.log.1: what is at its end"},
		{"nothing of ours", func(string) string { return foreign }, "audit.log.1: what is at its end"},
		{"both", func(b string) string { return strings.Replace(b, "p2", "px", 1) + garbage }, "audit.log.1: what is at its end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			keep(t, folder, 1<<20, numbered(5)...)
			good, err := os.ReadFile(fileOf(folder, 0))
			if err != nil {
				t.Fatal(err)
			}
			bad := tt.damage(string(good))
			if err := os.WriteFile(fileOf(folder, 0), []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			damage, logged := restart(t, folder, "first")
			if !strings.HasPrefix(damage, tt.want) || !strings.Contains(logged, "level=ERROR") || !strings.Contains(logged, "audit.log") {
				t.Errorf("damage %q, logged %q; want %q", damage, logged, tt.want)
			}
			now := ""
			for _, i := range []int{1, 0} {
				b, err := os.ReadFile(fileOf(folder, i))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				now += string(b)
			}
			if !strings.HasPrefix(now, bad) {
				t.Error("what stood there was not left as it was")
			}
			list, err := Tail(folder, 2, time.Time{})
			if err != nil || len(list) != 2 || list[0].Answer != Broken || list[0].Detail == "" || list[1].Portal != "first" {
				t.Errorf("records %+v, %v", list, err)
			}
			v := verify(t, folder, "")
			if v.Broken != "" || v.Open || len(v.Anew) != 1 {
				t.Errorf("begun anew: %+v", v)
			}

			// It is said once. Whoever has noted the head since has been told.
			if damage, logged := restart(t, folder, "second"); damage != "" || strings.Contains(logged, "level=ERROR") {
				t.Errorf("at the next start: damage %q, logged %q", damage, logged)
			}
			if v := verify(t, folder, v.Head); !v.Noted || !v.Settled || v.Broken != "" {
				t.Errorf("with the head of after: %+v", v)
			}
			b, err := os.ReadFile(fileOf(folder, 0))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(fileOf(folder, 0), bytes.Replace(b, []byte("first"), []byte("other"), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			if v := verify(t, folder, ""); v.Broken == "" {
				t.Errorf("altered again: %+v", v)
			}
		})
	}
}

// TestHeadOfBeforeDoesNotSettleWhatBrokeLater: it vouches for what led to it alone.
func TestHeadOfBeforeDoesNotSettleWhatBrokeLater(t *testing.T) {
	folder := t.TempDir()
	keep(t, folder, 1<<20, numbered(2)...)
	head := verify(t, folder, "").Head
	keep(t, folder, 1<<20, numbered(3)...)
	b, err := os.ReadFile(fileOf(folder, 0))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if err := os.WriteFile(fileOf(folder, 0), bytes.Join(append(lines[:3:3], lines[4:]...), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if damage, _ := restart(t, folder, "first"); damage == "" {
		t.Error("a line that was removed is not noticed")
	}
	if v := verify(t, folder, head); !v.Noted || v.Settled {
		t.Errorf("%+v, want the head noted and the damage not settled", v)
	}
}
