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
	if err := Table(&b, []string{"NAME", "STATE"}, [][]string{{"a\x1b[2J\nb", "up"}, {"long-name", "down"}}); err != nil {
		t.Fatal(err)
	}
	want := "NAME       STATE\na?[2J?b    up\nlong-name  down\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
