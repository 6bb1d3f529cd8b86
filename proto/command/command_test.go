package command

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func program() *cobra.Command {
	root := Root("netport-test", "Test")
	root.AddCommand(&cobra.Command{Use: "ok NAME", Args: Args("NAME"), RunE: func(*cobra.Command, []string) error { return nil }})
	root.AddCommand(&cobra.Command{Use: "fail", Args: Args(), RunE: func(*cobra.Command, []string) error { return errors.New("read x: no such file") }})
	root.AddCommand(&cobra.Command{Use: "shown", Args: Args(), RunE: func(*cobra.Command, []string) error { return ErrShown }})
	sub := Group(&cobra.Command{Use: "group"})
	sub.AddCommand(&cobra.Command{Use: "x", Args: Args(), RunE: func(*cobra.Command, []string) error { return nil }})
	root.AddCommand(sub)
	return root
}

func TestExitCodesAndMessages(t *testing.T) {
	for _, tt := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"ok a", 0, ""},
		{"--version", 0, ""},
		{"--help", 0, ""},
		{"", 0, ""},
		{"group", 0, ""},
		{"fail", 1, "netport-test: read x: no such file\n"},
		{"shown", 1, ""},
		{"ok", 2, "netport-test: NAME is missing; see \"netport-test ok --help\"\n"},
		{"ok a b", 2, "netport-test: unexpected argument \"b\"; see \"netport-test ok --help\"\n"},
		{"nonsense", 2, "netport-test: unknown command \"nonsense\"; see \"netport-test --help\"\n"},
		{"group nonsense", 2, "netport-test: unknown command \"nonsense\"; see \"netport-test group --help\"\n"},
		{"group ok --config x a", 2, "netport-test: unknown command \"ok\": it is not in \"group\": netport-test ok\n"},
		{"group nonsense --config x", 2, "netport-test: unknown command \"nonsense\"; see \"netport-test group --help\"\n"},
		{"nonsense --config x", 2, "netport-test: unknown command \"nonsense\"; see \"netport-test --help\"\n"},
		{"group --nonsense", 2, "netport-test: unknown flag: --nonsense; see \"netport-test group --help\"\n"},
		{"ok --nonsense", 2, "netport-test: unknown flag: --nonsense; see \"netport-test ok --help\"\n"},
	} {
		var out, errs bytes.Buffer
		code := Run(context.Background(), program(), strings.Fields(tt.args), nil, &out, &errs)
		if code != tt.code || errs.String() != tt.stderr {
			t.Errorf("%q: exit %d, stderr %q; want %d, %q", tt.args, code, errs.String(), tt.code, tt.stderr)
		}
	}
}

func TestTableCellsCannotCommandTheTerminal(t *testing.T) {
	var b bytes.Buffer
	if err := (&Page{Writer: &b}).Table(Columns{"NAME", "STATE"}, [][]string{{"a\x1b[2J\nb", "up"}, {"long-name", "down"}}); err != nil {
		t.Fatal(err)
	}
	want := "NAME       STATE\na?[2J?b    up\nlong-name  down\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestWhatIsTooWideGoesOnBelowItself: nothing is cut off, and --wide has it in one line.
func TestWhatIsTooWideGoesOnBelowItself(t *testing.T) {
	long := strings.Repeat("0123456789", 5)
	print := func(p *Page) string {
		var b bytes.Buffer
		p.Writer = &b
		p.Line("label  ", long+" one two three four five six seven eight nine ten")
		p.Line("", "ends here")
		if err := p.Table(Columns{"NAME", "STATE", "TEXT", "+MORE"}, [][]string{
			{long, "up again", "some words that say at length what has happened here", "x"},
			{"b", "", "-", "y"},
		}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	const narrow = `label  01234567890123456789012345678901234567890123456789 one two three four
       five six seven eight nine ten
ends here
NAME                                STATE     TEXT
0123456789012345678901234567890123  up again  some words that say at length what
4567890123456789                              has happened here
b                                             -
`
	if got := print(&Page{}); got != narrow {
		t.Errorf("got\n%s\nwant\n%s", got, narrow)
	}
	want := "label  " + long + " one two three four five six seven eight nine ten\nends here\n" +
		"NAME" + strings.Repeat(" ", 48) + "STATE     TEXT                                                  MORE\n" +
		long + "  up again  some words that say at length what has happened here  x\n" +
		"b" + strings.Repeat(" ", 61) + "-                                                     y\n"
	if got := print(&Page{Wide: true}); got != want {
		t.Errorf("wide: got\n%s\nwant\n%s", got, want)
	}
	if got, want := print(&Page{colour: true}), strings.Replace(narrow, "up again", green+"up again"+plain, 1); got != want {
		t.Errorf("in colour: got\n%q\nwant\n%q", got, want)
	}
}
