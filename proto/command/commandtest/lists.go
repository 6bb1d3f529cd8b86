// Package commandtest checks what the commands of a program print for people. It is for
// tests.
package commandtest

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/local"
)

// Lists says how to run the commands of a program that print lists.
type Lists struct {
	Program func() *cobra.Command
	Socket  string         // of the daemon that they ask
	Answers map[string]any // to the requests: values with long names in them
	Args    []string       // what all of them take
	// Shown has, by a command's name below the program, as in "ca status", what it takes to
	// show its list.
	Shown map[string][]string
	// Once are those of them that change or examine something: they cannot be watched.
	Once []string
	// Sentences are the commands with --json that print no list.
	Sentences []string
}

// Check runs every list. A command that has --json and is in none of the lists fails the
// test, and so does a line of more than 80 characters, a code for a terminal in a pipe, a
// list that cannot be watched, and one whose lines are not longer with --wide: its names are
// not long enough, or it does not take the flag.
func (l Lists) Check(t *testing.T) {
	l.answer(t)
	var found []string
	for _, c := range below(l.Program()) {
		name := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
		args, shown := l.Shown[name]
		switch {
		case c.Flags().Lookup("json") == nil:
			continue
		case slices.Contains(l.Sentences, name):
			found = append(found, name)
			continue
		case !shown:
			t.Errorf("%q takes --json, and this test does not know what it prints: add it", name)
			continue
		}
		found = append(found, name)
		once := slices.Contains(l.Once, name)
		if watched := c.Flags().Lookup("watch") != nil; watched == once {
			t.Errorf("%q can be watched: %v", name, watched)
		}
		args = slices.Concat(strings.Fields(name), args, l.Args)
		for _, line := range strings.Split(l.run(t, args...), "\n") {
			if n := utf8.RuneCountInString(line); n > 80 || strings.Contains(line, "\x1b") {
				t.Errorf("%q: a line of %d characters: %q", name, n, line)
			}
		}
		if b := []byte(l.run(t, append(args, "--json")...)); !json.Valid(b) {
			t.Errorf("%q --json: %s", name, b)
		}
		if wide := l.run(t, append(args, "--wide")...); !slices.ContainsFunc(strings.Split(wide, "\n"), func(s string) bool { return len(s) > 80 }) {
			t.Errorf("%q --wide: no line is longer than 80 characters, so it shows nothing that the test is for:\n%s", name, wide)
		}
	}
	for name := range l.Shown {
		if !slices.Contains(found, name) {
			t.Errorf("there is no list %q", name)
		}
	}
	for _, name := range l.Sentences {
		if !slices.Contains(found, name) {
			t.Errorf("there is no command %q with --json", name)
		}
	}
}

// run runs the program, into a pipe as it were, and returns what it prints.
func (l Lists) run(t *testing.T, args ...string) string {
	var out, errs bytes.Buffer
	command.Run(t.Context(), l.Program(), args, strings.NewReader(""), &out, &errs)
	if errs.Len() > 0 || out.Len() == 0 {
		t.Errorf("%q printed %q, and said %q", args, &out, &errs)
	}
	return out.String()
}

// answer has the answers given on the socket until the test ends.
func (l Lists) answer(t *testing.T) {
	s, err := local.Listen(l.Socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for request, answer := range l.Answers {
		s.Handle(request, func(context.Context, json.RawMessage) (any, error) { return answer, nil })
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// below returns all commands below one.
func below(c *cobra.Command) (list []*cobra.Command) {
	for _, sub := range c.Commands() {
		list = append(append(list, sub), below(sub)...)
	}
	return list
}
