package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/spf13/cobra"
)

// fullAfter is an output that takes so many bytes.
type fullAfter struct{ room int }

func (f *fullAfter) Write(b []byte) (int, error) {
	n := min(len(b), f.room)
	f.room -= n
	if n < len(b) {
		return n, errors.New("write /dev/stdout: no space left on device")
	}
	return n, nil
}

// TestCommandFailsWhenItCannotPrint: also one that does not look at what became of it (B99).
func TestCommandFailsWhenItCannotPrint(t *testing.T) {
	for _, tt := range []struct {
		name string
		out  io.Writer
		code int
		errs string
	}{
		{"room for all", &fullAfter{6}, 0, ""},
		{"room for some", &fullAfter{5}, 1, "netport-test: write /dev/stdout: no space left on device\n"},
		{"none", &fullAfter{0}, 1, "netport-test: write /dev/stdout: no space left on device\n"},
	} {
		root := Root("netport-test", "Test")
		root.AddCommand(&cobra.Command{Use: "token", Args: Args(), Run: func(c *cobra.Command, _ []string) {
			fmt.Fprint(c.OutOrStdout(), "tok")
			fmt.Fprint(c.OutOrStdout(), "en\n")
		}})
		var errs bytes.Buffer
		if code := Run(context.Background(), root, []string{"token"}, nil, tt.out, &errs); code != tt.code || errs.String() != tt.errs {
			t.Errorf("%s: exit %d, stderr %q; want %d, %q", tt.name, code, errs.String(), tt.code, tt.errs)
		}
	}
}
