package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ward prints a number of things as a table.
func ward(p *Page, n int) error {
	return p.Table(Columns{"NAME", "STATE", "+MORE"}, [][]string{{"a", []string{"up", "waiting 3s", "down"}[n%3], "x"}, {"bb", "else", "y\x1b"}})
}

func TestWatchShowsTheLatestUntilInterrupted(t *testing.T) {
	for _, c := range []struct {
		name   string
		screen bool
		view   View
		want   string // DATE for each time of day
	}{
		{"to a file", false, View{watch: true}, "DATE\nNAME  STATE\na     up\nbb    else\n\nDATE\nask the daemon: gone\n\nDATE\nNAME  STATE\na     down\nbb    else\n"},
		{"as JSON", false, View{watch: true, json: true}, "0\nask the daemon: gone\n2\n"},
		{"on a terminal", true, View{watch: true, wide: true},
			"\x1b[H\x1b[2J\x1b[3JDATE\nNAME  STATE  MORE\na     \x1b[32mup\x1b[39m     x\nbb    else   y?\n" +
				"\x1b[H\x1b[2J\x1b[3JDATE\nask the daemon: gone\n" +
				"\x1b[H\x1b[2J\x1b[3JDATE\nNAME  STATE  MORE\na     \x1b[31mdown\x1b[39m   x\nbb    else   y?\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", "")
			synctest.Test(t, func(t *testing.T) {
				ctx, interrupt := context.WithTimeout(t.Context(), 5*time.Second) // after the third look
				defer interrupt()
				var out bytes.Buffer
				looks := 0
				began := time.Now()
				err := show(ctx, &out, c.screen, c.view, func(context.Context) (int, error) {
					if looks++; looks == 2 {
						return 0, errors.New("ask the daemon: gone")
					}
					return looks - 1, nil
				}, ward)
				if err != nil || looks != 3 {
					t.Errorf("%d looks, %v; want 3 and no error", looks, err)
				}
				got := trimmed(out.String())
				for n := range looks {
					got = strings.Replace(got, began.Add(time.Duration(n)*watchEvery).Format(time.DateTime), "DATE", 1)
				}
				if got != c.want {
					t.Errorf("got\n%q\nwant\n%q", got, c.want)
				}
			})
		})
	}
}

func trimmed(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func TestWithoutWatchTheFirstErrorEnds(t *testing.T) {
	gone := errors.New("gone")
	for _, v := range []View{{}, {watch: true}} {
		var out bytes.Buffer
		err := show(t.Context(), &out, false, v, func(context.Context) (int, error) { return 0, gone }, ward)
		if err != gone || out.Len() > 0 {
			t.Errorf("%v, printed %q", err, out.String())
		}
	}
}

// TestColoursAreForTerminals: neither for files, nor where NO_COLOR or a dumb terminal asks for none.
func TestColoursAreForTerminals(t *testing.T) {
	t.Setenv("TERM", "xterm")
	if terminal(&bytes.Buffer{}) {
		t.Error("a buffer is taken for a terminal")
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if terminal(file) {
		t.Error("a file is taken for a terminal")
	}
	t.Setenv("NO_COLOR", "1")
	var out bytes.Buffer
	if err := show(t.Context(), &out, true, View{}, func(context.Context) (int, error) { return 0, nil }, ward); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("with NO_COLOR: %q, %v", out.String(), err)
	}
}
