// Package manual writes what belongs beside an installed program: a manual page for
// each of its commands, and what shells need to complete its command line. The
// programs do not link it; each role has a generator that does (internal/manual),
// and packaging runs that.
package manual

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/netport/netport/proto/command"
)

// Section is the section of all manual pages.
const Section = "1"

// Example is an example of a file that the program reads.
type Example struct {
	Name string
	Text []byte
}

// Main is a generator: it writes into the folder that its one argument names, which
// must exist, and returns the exit code.
func Main(root *cobra.Command, examples ...Example) int {
	program := root.Name()
	generator := &cobra.Command{
		Use: "manual FOLDER", Args: command.Args("FOLDER"), SilenceErrors: true, SilenceUsage: true,
		RunE: func(_ *cobra.Command, args []string) error { return Write(root, args[0], examples...) },
	}
	if err := generator.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "manual of %s: %s\n", program, err)
		return 1
	}
	return 0
}

// Write writes into dir the manual pages of a program (man/PROGRAM-COMMAND.1) and its
// completions (bash/PROGRAM, zsh/_PROGRAM, fish/PROGRAM.fish), and examples. The date in
// the pages is now, or what SOURCE_DATE_EPOCH says.
func Write(root *cobra.Command, dir string, examples ...Example) error {
	command.Versions(root)
	flags(root)
	program := root.Name()
	for _, name := range []string{"man", "bash", "zsh", "fish", "examples"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	header := &doc.GenManHeader{Section: Section, Source: program, Manual: "Netport"}
	root.DisableAutoGenTag = true // a page is of a version, not of the day it was made
	if err := doc.GenManTree(root, header, filepath.Join(dir, "man")); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	for _, shell := range []struct {
		file string
		gen  func(io.Writer) error
	}{
		{"bash/" + program, func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{"zsh/_" + program, root.GenZshCompletion},
		{"fish/" + program + ".fish", func(w io.Writer) error { return root.GenFishCompletion(w, true) }},
	} {
		if err := create(filepath.Join(dir, shell.file), shell.gen); err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
	}
	for _, e := range examples {
		if err := os.WriteFile(filepath.Join(dir, "examples", e.Name), e.Text, 0o644); err != nil {
			return fmt.Errorf("write example: %w", err)
		}
	}
	return nil
}

// flags gives every command the flags that cobra adds only when it runs.
func flags(c *cobra.Command) {
	c.InitDefaultVersionFlag()
	for _, sub := range c.Commands() {
		flags(sub)
	}
}

func create(file string, write func(io.Writer) error) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Close()
}
