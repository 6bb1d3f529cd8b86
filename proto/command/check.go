package command

import (
	"fmt"

	"github.com/spf13/cobra"
)

// checked ends "run --check": it prints "ok", or every mistake and then fails.
func checked(c *cobra.Command, mistakes []error) error {
	if len(mistakes) == 0 {
		_, err := fmt.Fprintln(c.OutOrStdout(), "ok")
		return err
	}
	for _, m := range mistakes {
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", c.Root().Name(), m)
	}
	return ErrShown
}
