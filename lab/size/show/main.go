// Command show says how large netport-portal is, stripped, on the systems that the goals name (S1), and with -table what
// each dependency has of it. It is run from the root of the tree: make size runs it with -table, and make check without.
// It never fails for a size.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/netport/netport/lab/size"
)

func main() {
	table := flag.Bool("table", false, "say what each dependency has of it")
	flag.Parse()
	if err := run(os.Stdout, *table); err != nil {
		fmt.Fprintf(os.Stderr, "size: %v\n", err)
		os.Exit(1)
	}
}

func run(out io.Writer, table bool) error {
	var texts []string
	var whole int64 // of the first architecture
	for i, arch := range size.Architectures {
		bytes, err := size.Stripped(arch)
		if err != nil {
			return err
		}
		if i == 0 {
			whole = bytes
		}
		texts = append(texts, fmt.Sprintf("%s MB for %s", megabytes(bytes), arch))
	}
	fmt.Fprintf(out, "netport-portal, stripped: %s (goal: %s MB)\n", strings.Join(texts, ", "), megabytes(size.Goal))
	if !table {
		return nil
	}
	parts, err := size.Parts(size.Architectures[0], whole)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nWhat each module has of it on linux/%s, in MB, and what would go with the module: its own and the\n"+
		"packages that nothing else imports. Line tables, types and strings are shared out by size of code.\n\n", size.Architectures[0])
	fmt.Fprintf(out, "%-44s%8s%12s\n", "", "own", "would go")
	for _, p := range parts {
		gone := ""
		if p.Removable {
			gone = megabytes(p.Gone)
		}
		fmt.Fprintf(out, "%-44s%8s%12s\n", p.Name, megabytes(p.Own), gone)
	}
	return nil
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.2f", float64(bytes)/1e6) }
