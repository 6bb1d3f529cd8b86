// Command show says how large netport-portal is, stripped, on the systems that the goals name (S1): with -table also what
// each dependency has of it, and with -check it fails if that is more than the ceiling. make size and make check run it,
// in the root of the tree.
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
	check := flag.Bool("check", false, "fail if it is larger than the ceiling")
	flag.Parse()
	if err := run(os.Stdout, *table, *check); err != nil {
		fmt.Fprintf(os.Stderr, "size: %v\n", err)
		os.Exit(1)
	}
}

func run(out io.Writer, table, check bool) error {
	var texts []string
	var whole, largest int64 // of the first architecture, of any
	for i, arch := range size.Architectures {
		bytes, err := size.Stripped(arch)
		if err != nil {
			return err
		}
		if i == 0 {
			whole = bytes
		}
		largest = max(largest, bytes)
		texts = append(texts, fmt.Sprintf("%s MB for %s", megabytes(bytes), arch))
	}
	fmt.Fprintf(out, "netport-portal, stripped: %s (goal: %s MB)\n", strings.Join(texts, ", "), megabytes(size.Goal))
	if check && largest > size.Ceiling {
		return fmt.Errorf("that is more than %s MB: see by \"make size\" what has grown, or raise Ceiling in lab/size", megabytes(size.Ceiling))
	}
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
