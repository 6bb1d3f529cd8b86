package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// printer writes what the demo did, for a person, in at most 80 columns.
type printer struct {
	w     io.Writer
	bold  bool
	steps int
}

// newPrinter makes a printer that uses bold type only on a terminal, and not where
// NO_COLOR asks for plain text.
func newPrinter(f *os.File) *printer {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &printer{w: f, bold: err == nil && os.Getenv("NO_COLOR") == ""}
}

// title writes a line that stands for itself.
func (p *printer) title(text string) {
	if p.bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	fmt.Fprintln(p.w, text)
}

// step begins the next numbered part.
func (p *printer) step(text string) {
	p.steps++
	fmt.Fprintln(p.w)
	p.title(fmt.Sprintf("%d. %s", p.steps, text))
}

// end writes the last line.
func (p *printer) end(text string) {
	fmt.Fprintf(p.w, "\n%s\n", text)
}

// row writes one fact under its name; an empty name goes on with the fact above.
func (p *printer) row(name, format string, args ...any) {
	fmt.Fprintf(p.w, "   %-9s  %s\n", name, fmt.Sprintf(format, args...))
}

// commands writes lines that the reader can copy.
func (p *printer) commands(lines string) {
	fmt.Fprintln(p.w)
	for line := range strings.Lines(lines) {
		fmt.Fprintf(p.w, "   %s", line)
	}
}

// short writes a duration with about three digits: 1.24 ms, 0.31 s.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.3g ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}
