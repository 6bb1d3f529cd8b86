// Command size says how large netport-portal is, stripped, on the systems that the goals name (S1), and with -table what
// each dependency has of it. It fails if the portal cannot be built, or if the linker had to keep every exported method
// because something looks methods up by name; it never fails for a size. It is run from the root of the tree: make size
// runs it with -table, and make check without.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// goal is S1: what a portal may have, in megabytes.
const goal = 10

// architectures are those of goal S1, of Linux.
var architectures = []string{"amd64", "arm"}

func main() {
	table := flag.Bool("table", false, "say what each dependency has of it")
	flag.Parse()
	if err := run(os.Stdout, *table); err != nil {
		fmt.Fprintf(os.Stderr, "size: %v\n", err)
		os.Exit(1)
	}
}

func run(out io.Writer, table bool) error {
	dir, err := os.MkdirTemp("", "netport-size-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var texts []string
	var whole int64 // of the first architecture
	for i, arch := range architectures {
		size, err := stripped(arch, filepath.Join(dir, arch))
		if err != nil {
			return err
		}
		if i == 0 {
			whole = size
		}
		texts = append(texts, fmt.Sprintf("%s MB for %s", megabytes(size), arch))
	}
	fmt.Fprintf(out, "netport-portal, stripped: %s (goal: %d MB)\n", strings.Join(texts, ", "), goal)
	if !table {
		return nil
	}
	owners, err := listed(architectures[0])
	if err != nil {
		return err
	}
	file, err := labelled(architectures[0], filepath.Join(dir, "labelled"))
	if err != nil {
		return err
	}
	symbols, err := symbolsOf(file)
	if err != nil {
		return err
	}
	writeTable(out, owners, owners.shares(symbols, whole))
	return nil
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.2f", float64(bytes)/1e6) }

func writeTable(out io.Writer, of packages, shares map[string]int64) {
	fmt.Fprintf(out, "\nWhat each module has of it on linux/%s, in MB, and what would go with the module: its own and the\n"+
		"packages that nothing else imports. Line tables, types and strings are shared out by size of code.\n\n", architectures[0])
	fmt.Fprintf(out, "%-44s%8s%12s\n", "", "own", "would go")
	for _, g := range of.groups(shares) {
		gone := ""
		if g.removable {
			gone = megabytes(g.gone)
		}
		fmt.Fprintf(out, "%-44s%8s%12s\n", g.name, megabytes(g.own), gone)
	}
}
