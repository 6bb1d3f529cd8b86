package conffile

import "fmt"

// The TOML decoder's work grows with the parts of a key and with the number of
// values far more than with the length of a file: both are counted first.
const (
	// maxParts is the most parts of a dotted key.
	maxParts = 16
	// maxValues is the most keys, tables and elements of lists in a file. The largest
	// policy has 100,000 forwards.
	maxValues = 2_000_000
)

// bounded returns where a file goes beyond these bounds and how, or an empty text. It
// knows TOML's strings and comments and nothing else of it: what is no TOML is the
// decoder's to refuse, which stops at the first mistake.
func bounded(data []byte) (offset int, text string) {
	dots, values := 0, 0
	for i := 0; i < len(data); {
		switch c := data[i]; c {
		case '#':
			for i < len(data) && data[i] != '\n' {
				i++
			}
			continue
		case '"', '\'':
			i = afterString(data, i)
			continue
		case '.':
			if dots++; dots >= maxParts {
				return i, fmt.Sprintf("a key of more than %d parts", maxParts)
			}
		case '=', ',', '[', '{':
			if values++; values > maxValues {
				return i, fmt.Sprintf("more than %d keys and values in one file", maxValues)
			}
			dots = 0
		case '\n', ']', '}':
			dots = 0
		}
		i++
	}
	return 0, ""
}

// afterString returns where the string that begins at i is over. One that has no end
// ends with its line, or with the file if it may have several lines.
func afterString(data []byte, i int) int {
	quote := data[i]
	run := 0
	for i+run < len(data) && data[i+run] == quote && run < 3 {
		run++
	}
	if run == 2 {
		return i + 2 // an empty one
	}
	for i += run; i < len(data); i++ {
		switch {
		case data[i] == '\\' && quote == '"':
			i++
		case data[i] == '\n' && run == 1:
			return i
		case data[i] != quote:
		case run == 1:
			return i + 1
		default:
			n := 0 // three quotes end it, and up to two before them are its own
			for i+n < len(data) && data[i+n] == quote && n < 5 {
				n++
			}
			if n >= 3 {
				return i + n
			}
			i += n - 1
		}
	}
	return len(data)
}
