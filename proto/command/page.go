package command

import (
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Page is what a command prints on.
type Page struct {
	io.Writer
	Wide   bool // all columns are wanted
	colour bool
}

// Columns name those of a table. Names that begin with Only are of columns that are left
// out unless the page is wide.
type Columns []string

// Only marks a column that a wide page alone has.
const Only = "+"

// The colours of states: the words that have one. All others have none.
var colours = map[string]string{
	"up": green, "ok": green, "connected": green, "ready": green,
	"down": red, "failed": red, "TWO": red, "ended": red,
	"waiting": yellow, "warning": yellow, "draining": yellow, "away": yellow, "opening": yellow,
}

// The codes of colours (ECMA-48, SGR); all as long as each other, so that columns line up.
const (
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	plain  = "\x1b[39m"
)

// stateColumn is the one whose words have colours.
const stateColumn = "STATE"

// Table prints rows under their columns, as Table does, without those that are not wanted.
func (p *Page) Table(columns Columns, rows [][]string) error {
	var header []string
	var kept []int
	for i, name := range columns {
		bare, only := strings.CutPrefix(name, Only)
		if !only || p.Wide {
			header, kept = append(header, bare), append(kept, i)
		}
	}
	table := make([][]string, 0, len(rows))
	for _, r := range rows {
		cells := make([]string, 0, len(kept))
		for _, i := range kept {
			cells = append(cells, Clean(r[i]))
		}
		table = append(table, cells)
	}
	if state := slices.Index(header, stateColumn); state >= 0 && p.colour {
		header[state] = plain + header[state] + plain
		for _, cells := range table {
			cells[state] = paint(cells[state])
		}
	}
	return lines(p, header, table)
}

// State is a state as the page shows it: in its colour.
func (p *Page) State(word string) string {
	if !p.colour {
		return word
	}
	return paint(word)
}

// paint colours a state by its first word.
func paint(state string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(state), " ")
	code := colours[word]
	if code == "" {
		code = plain
	}
	return code + state + plain
}

// terminal reports whether w shows what is written to a person, and takes codes.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || runtime.GOOS == "windows" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// coloured reports whether colours are wanted (no-color.org).
func coloured() bool { return os.Getenv("NO_COLOR") == "" }

// NewPage returns a page for what a command prints once.
func NewPage(w io.Writer) *Page { return &Page{Writer: w, colour: terminal(w) && coloured()} }
