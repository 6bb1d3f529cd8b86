// Package command holds what the command lines of all roles have in common:
// exit codes, how errors are printed, tables and their JSON, the log.
//
// Exit codes: 0 done, 1 failed, 2 used wrongly, 128 and its number where a second
// signal did not let the program stop in peace. Errors go to standard error as
// one line that begins with the program's name; results go to standard output.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command/interrupt"
	"github.com/netport/netport/proto/supervise"
)

// Version is the version of the programs. The build sets it.
var Version = "dev"

// usageError marks a mistake in how the program was called: exit code 2.
type usageError struct{ error }

// Usagef returns an error about how the program was called.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Root returns the root command of a program. Commands are added to it with
// Add.
func Root(name, short string) *cobra.Command {
	root := &cobra.Command{
		Use:               name,
		Short:             short,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              group,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return Usagef("%w; see \"%s --help\"", err, c.CommandPath())
	})
	return root
}

// Group makes c a command that only holds others.
func Group(c *cobra.Command) *cobra.Command {
	c.Args = group
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	for _, top := range c.Root().Commands() {
		if c.HasParent() && top.Name() == args[0] {
			return Usagef("unknown command %q: it is not in %q: %s", args[0], c.Name(), top.CommandPath())
		}
	}
	return Usagef("unknown command %q; see \"%s --help\"", args[0], c.CommandPath())
}

// Args returns a check that exactly the named arguments are given.
func Args(names ...string) cobra.PositionalArgs { return arguments(len(names), names) }

// OptionalArgs returns a check that no more than the named arguments are given.
func OptionalArgs(names ...string) cobra.PositionalArgs { return arguments(0, names) }

func arguments(least int, names []string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return Usagef("%s is missing; see \"%s --help\"", names[len(args)], c.CommandPath())
		case len(args) > len(names):
			return Usagef("unexpected argument %q; see \"%s --help\"", args[len(names)], c.CommandPath())
		}
		return nil
	}
}

// Main runs root with the arguments of the process and returns its exit code.
// The first SIGINT or SIGTERM cancels the context of the command; the second
// ends the process at once (package interrupt). SIGPIPE is ignored: a daemon goes
// on when whoever reads its log is gone. A service of Windows stops when its manager
// wants, too.
func Main(root *cobra.Command) int {
	signal.Ignore(syscall.SIGPIPE)
	ctx, end := interrupt.Context()
	defer end()
	return supervise.Main(ctx, root.Name(), os.Stderr, func(ctx context.Context, stderr io.Writer) int {
		return Run(ctx, root, os.Args[1:], os.Stdin, os.Stdout, stderr)
	})
}

// Run runs root with args and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{Writer: stdout}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	Versions(root)
	flagsOnce(root)
	err := checkNoToken(args)
	if err == nil {
		if err = root.ExecuteContext(ctx); isUsage(err) {
			err = unknown(root, args, err)
		}
	}
	if err == nil {
		err = out.err
	}
	if err == nil {
		return 0
	}
	if !errors.Is(err, ErrShown) {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), err)
	}
	if isUsage(err) {
		return 2
	}
	return 1
}

func isUsage(err error) bool {
	var usage usageError
	return errors.As(err, &usage)
}

// unknown returns the error about a command that does not exist in place of one about its
// flags, which no command knows either.
func unknown(root *cobra.Command, args []string, err error) error {
	c, rest, _ := root.Find(args)
	if c == nil || !c.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return err
	}
	if other := c.ValidateArgs(rest[:1]); other != nil {
		return other
	}
	return err
}

// Versions gives a program its --version; Run does that by itself. It goes without cobra's
// SetVersionTemplate: a template calls methods by names that the linker cannot know,
// so it keeps every exported method, 2.2 MB of them.
func Versions(root *cobra.Command) { root.Version = Version }

// ErrShown ends a command with exit code 1 when what went wrong has been
// printed already.
var ErrShown = errors.New("the command has printed why it failed")

// JSON prints v as indented JSON.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Clean replaces what a terminal would take for a command.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r < 0xa0 || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
