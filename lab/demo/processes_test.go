package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestProgramThatDiesEndsTheDemoAndIsNamedWithItsLog(t *testing.T) {
	ps := newProcesses(t.TempDir())
	ctx, cancel := ps.watch(t.Context())
	defer cancel()
	if _, _, err := ps.start("steady", "sleep", []string{"100"}, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ps.start("fragile", "sh", []string{"-c", "echo one; echo two >&2; exit 3"}, false); err != nil {
		t.Fatal(err)
	}

	<-ctx.Done()
	err := context.Cause(ctx)
	if got, want := err.Error(), "fragile died: exit status 3"; got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
	var f *failure
	if !errors.As(err, &f) {
		t.Fatalf("got %T, want a failure", err)
	}
	if got, want := f.program.tail(), "one\ntwo"; got != want {
		t.Errorf("got log %q, want %q", got, want)
	}

	steady := ps.running[0]
	ps.stop()
	select {
	case <-steady.done:
	default:
		t.Error("stop returned while a program still ran")
	}
}

func TestKilledProgramDoesNotEndTheDemo(t *testing.T) {
	ps := newProcesses(t.TempDir())
	ctx, cancel := ps.watch(t.Context())
	defer cancel()
	defer ps.stop()
	victim, _, err := ps.start("victim", "sleep", []string{"100"}, false)
	if err != nil {
		t.Fatal(err)
	}
	victim.kill()
	if _, _, err := ps.start("fragile", "sh", []string{"-c", "exit 3"}, false); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !strings.Contains(err.Error(), "fragile") {
		t.Errorf("got error %v, want fragile's", err)
	}
}

func TestFirstLineOfAProgramIsReturned(t *testing.T) {
	ps := newProcesses(t.TempDir())
	defer ps.stop()
	_, line, err := ps.start("speaker", "sh", []string{"-c", "echo 127.0.0.1:80; exec sleep 100"}, true)
	if err != nil || line != "127.0.0.1:80" {
		t.Errorf("got line %q and error %v, want 127.0.0.1:80", line, err)
	}
	_, _, err = ps.start("mute", "sh", []string{"-c", "echo no port left >&2"}, true)
	var f *failure
	if !errors.As(err, &f) {
		t.Fatalf("program that ends before it is ready: got error %v, want a failure", err)
	}
	<-f.program.done
	if got, want := f.program.tail(), "no port left"; got != want {
		t.Errorf("got log %q, want %q", got, want)
	}
}

func TestTailIsTheEndOfTheLog(t *testing.T) {
	p := &program{log: t.TempDir() + "/log"}
	if err := os.WriteFile(p.log, []byte(strings.Repeat("x\n", 100)+"last\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("x\n", tailLines-1) + "last"
	if got := p.tail(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunReturnsWhatTheCommandSaid(t *testing.T) {
	if got, err := run(t.Context(), "sh", "-c", "echo well; echo noise >&2"); err != nil || got != "well\n" {
		t.Errorf("got %q and error %v, want standard output alone", got, err)
	}
	_, err := run(t.Context(), "sh", "-c", "echo reason >&2; exit 2")
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 2: reason") {
		t.Errorf("got error %v, want one that ends with the command's reason", err)
	}
}

func TestUntil(t *testing.T) {
	polls := 0
	err := until(t.Context(), time.Minute, func(context.Context) error {
		if polls++; polls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || polls != 3 {
		t.Errorf("got error %v after %d polls, want nil after 3", err, polls)
	}

	err = until(t.Context(), time.Millisecond, func(context.Context) error { return errors.New("no relay") })
	if got, want := err.Error(), "not ready after 1ms: no relay"; got != want {
		t.Errorf("time is up: got %q, want %q", got, want)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("relay died"))
	err = until(ctx, time.Minute, func(context.Context) error { return errors.New("no relay") })
	if got, want := err.Error(), "relay died"; got != want {
		t.Errorf("a program died: got %q, want %q", got, want)
	}
}
