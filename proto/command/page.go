package command

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"
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

// The codes of colours (ECMA-48, SGR).
const (
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	plain  = "\x1b[39m"
)

// stateColumn is the one whose words have colours.
const stateColumn = "STATE"

// width is how many characters a line has unless the page is wide.
const width = 80

// gap is what stands between two columns.
const gap = "  "

// Table prints rows under their columns, without those that are not wanted. Cells are
// cleaned of control characters: some come from other machines. Unless the page is wide, the
// widest cells go on below themselves where a row would be longer than 80 characters.
func (p *Page) Table(columns Columns, rows [][]string) error {
	var header []string
	var kept []int
	for i, name := range columns {
		bare, only := strings.CutPrefix(name, Only)
		if !only || p.Wide {
			header, kept = append(header, bare), append(kept, i)
		}
	}
	table := [][]string{header}
	for _, r := range rows {
		cells := make([]string, 0, len(kept))
		for _, i := range kept {
			cells = append(cells, Clean(r[i]))
		}
		table = append(table, cells)
	}
	widths := p.widths(table)
	state := slices.Index(header, stateColumn)
	var text strings.Builder
	for _, cells := range table {
		code := ""
		if state >= 0 && p.colour {
			code = codeOf(cells[state])
		}
		row(&text, cells, widths, state, code)
	}
	_, err := io.WriteString(p, text.String())
	return err
}

// widths shares a line out among the columns of a table: each as it needs, and where that is
// too much, the widest take less.
func (p *Page) widths(table [][]string) []int {
	widths := make([]int, len(table[0]))
	for _, cells := range table {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	if p.Wide {
		return widths
	}
	over := len(gap) * (len(widths) - 1)
	for i := range widths {
		widths[i] = min(widths[i], width)
		over += widths[i]
	}
	for ; over > width; over-- {
		widest := -1
		for i, w := range widths {
			if w > len(table[0][i]) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break // the names of the columns alone need that much
		}
		widths[widest]--
	}
	return widths
}

// row writes the cells of one row, over several lines where one is wider than its column.
// The cell of a state has a colour if there is a code.
func row(text *strings.Builder, cells []string, widths []int, state int, code string) {
	parts := make([][]string, len(cells))
	lines := 1
	for i, cell := range cells {
		parts[i] = wrap(cell, widths[i])
		lines = max(lines, len(parts[i]))
	}
	for n := range lines {
		blank := 0 // spaces that nothing follows yet
		for i, part := range parts {
			if i > 0 {
				blank += len(gap)
			}
			if n >= len(part) || part[n] == "" {
				blank += widths[i]
				continue
			}
			text.WriteString(strings.Repeat(" ", blank))
			if i == state && code != "" {
				text.WriteString(code + part[n] + plain)
			} else {
				text.WriteString(part[n])
			}
			blank = widths[i] - utf8.RuneCountInString(part[n])
		}
		text.WriteByte('\n')
	}
}

// Line prints text, cleaned, after a head. Unless the page is wide, it goes on below itself
// where the line would be longer than 80 characters. A head that is a state has its colour.
func (p *Page) Line(head, text string) {
	column, lines := utf8.RuneCountInString(head), []string{Clean(text)}
	if !p.Wide {
		lines = wrap(lines[0], max(width-column, 1))
	}
	code := colours[strings.TrimSpace(head)]
	if p.colour && code != "" {
		head = code + head + plain
	}
	fmt.Fprintf(p, "%s%s\n", head, strings.Join(lines, "\n"+strings.Repeat(" ", column)))
}

// wrap cuts a text into lines, at spaces if it can.
func wrap(text string, width int) (lines []string) {
	rest := []rune(text)
	for len(rest) > width {
		at, next := width, width
		for i := width; i > 0; i-- {
			if rest[i] == ' ' {
				at, next = i, i+1
				break
			}
		}
		lines, rest = append(lines, string(rest[:at])), rest[next:]
	}
	return append(lines, string(rest))
}

// codeOf is the code of a state's colour, by its first word.
func codeOf(state string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(state), " ")
	return colours[word]
}

// terminal reports whether w shows what is written to a person, and takes codes.
func terminal(w io.Writer) bool {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	if !ok || runtime.GOOS == "windows" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// coloured reports whether colours are wanted (no-color.org).
func coloured() bool { return os.Getenv("NO_COLOR") == "" }
