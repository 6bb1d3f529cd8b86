// Package conffile reads the TOML files that people write: configurations and
// policies. Every mistake is reported where it stands, as
//
//	policy.toml:12:8: forward "web": unknown portal "fctory-1"
//	   12 | to = "fctory-1 tcp://10.0.0.5:80"
//	      |      ^
//
// Nothing is ignored: an unknown key is an error, for a misspelt one would
// change what the file means without anybody noticing.
package conffile

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/netport/netport/proto/identity"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 16 << 20

// Error is a mistake in a file.
type Error struct {
	File         string
	Line, Column int // from 1; 0: the file as a whole
	Text         string

	source string // the line it stands in
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	// Tabs before the mark stay tabs, so that it stands under its column.
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, firstRunes(e.source, e.Column-1))
	return fmt.Sprintf("%s:%d:%d: %s\n%5d | %s\n      | %s^", e.File, e.Line, e.Column, e.Text, e.Line, e.source, pad)
}

// File is a file that was read, to report mistakes of meaning in.
type File struct {
	Name string

	data      []byte
	place     map[string]unstable.Range // of each key's value
	variables map[string]string         // of the environment, by the keys that they set
}

// Load reads the TOML file name into v, a pointer to a struct.
func Load(name string, v any) (*File, error) {
	b, err := identity.ReadFileLimit(name, MaxSize)
	if err != nil {
		return nil, err
	}
	return Parse(name, b, v)
}

// Parse reads data, which is the content of the file name, into v.
func Parse(name string, data []byte, v any) (*File, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		return nil, &Error{File: name, Text: "it is not UTF-8 text"}
	}
	f := &File{Name: name, data: data}
	if at, text := bounded(data); text != "" {
		line, col := f.position(at)
		return nil, f.errorAt(line, col, text)
	}
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, f.decodeError(err, v)
	}
	f.index()
	return f, nil
}

func (f *File) decodeError(err error, v any) error {
	var missing *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &missing) && len(missing.Errors) > 0:
		e := missing.Errors[0]
		key := e.Key()
		text := fmt.Sprintf("unknown key %q", firstRunes(strings.Join(key, "."), 100))
		text += hint(reflect.TypeOf(v), key)
		if more := len(missing.Errors) - 1; more > 0 {
			text += fmt.Sprintf(" (and %d more unknown keys)", more)
		}
		line, col := e.Position()
		return f.errorAt(line, col, text)
	case errors.As(err, &bad):
		line, col := bad.Position()
		return f.errorAt(line, col, firstRunes(plain(bad.Error(), bad.Key(), reflect.TypeOf(v)), 300))
	}
	return &Error{File: f.Name, Text: strings.TrimPrefix(err.Error(), "toml: ")}
}

// plain turns go-toml's words, which name Go types, into ours.
func plain(text string, key toml.Key, in reflect.Type) string {
	text = strings.TrimPrefix(text, "toml: ")
	if strings.HasPrefix(text, "cannot decode") || strings.HasPrefix(text, "cannot store") || strings.Contains(text, "incompatible types") {
		text = fmt.Sprintf("key %q: a value of the wrong type", firstRunes(strings.Join(key, "."), 100))
		if t, ok := find(in, key); ok {
			text += ": " + want(t) + " is needed"
		}
	}
	return text
}

// Errorf returns a mistake of meaning in the value of a key. A key is written
// with dots, an element of an array of tables with its index from 0:
// "forward[2].from". If the key is not in the file, the nearest table above it
// is marked.
func (f *File) Errorf(key, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	for k := key; k != ""; k = parent(k) {
		if name, ok := f.variables[k]; ok {
			return inVariable(name, text)
		}
		if r, ok := f.place[k]; ok {
			line, col := f.position(int(r.Offset))
			return f.errorAt(line, col, text)
		}
	}
	return &Error{File: f.Name, Text: text}
}

// Place returns where the value of a key stands, as FILE:LINE:COLUMN; the nearest
// table above it if it is not in the file.
func (f *File) Place(key string) string {
	for k := key; k != ""; k = parent(k) {
		if name, ok := f.variables[k]; ok {
			return name
		}
		if r, ok := f.place[k]; ok {
			line, col := f.position(int(r.Offset))
			return fmt.Sprintf("%s:%d:%d", f.Name, line, col)
		}
	}
	return f.Name
}

// Has reports whether the file, or a variable of the environment, sets the key.
func (f *File) Has(key string) bool {
	_, written := f.place[key]
	_, set := f.variables[key]
	return written || set
}

// Path returns p as the file means it: relative to the file's own folder.
func (f *File) Path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(filepath.Dir(f.Name), p)
}

func parent(key string) string {
	if strings.HasSuffix(key, "]") {
		return key[:strings.LastIndexByte(key, '[')]
	}
	return key[:max(0, strings.LastIndexByte(key, '.'))]
}

func (f *File) errorAt(line, col int, text string) error {
	e := &Error{File: f.Name, Line: line, Column: col, Text: text}
	rest := f.data
	for range line - 1 {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	rest, _, _ = bytes.Cut(rest, []byte("\n"))
	e.source = printable(string(bytes.TrimRight(rest, "\r")), col)
	return e
}

// printable keeps a quoted line harmless on a terminal and short.
func printable(s string, col int) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r == utf8.RuneError || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069 || 0x80 <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, firstRunes(s, max(160, min(col, 1000))))
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

func (f *File) position(offset int) (line, col int) {
	before := f.data[:offset]
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
}

// index notes where the value of each key stands. The file has been decoded
// once, so it is well formed.
func (f *File) index() {
	f.place = make(map[string]unstable.Range)
	var p unstable.Parser
	p.Reset(f.data)
	table, count := "", map[string]int{}
	for p.NextExpression() {
		switch n := p.Expression(); n.Kind {
		case unstable.Table, unstable.ArrayTable:
			var at unstable.Range
			table, at = f.path(&p, n, count)
			if n.Kind == unstable.ArrayTable {
				count[table]++
				table = fmt.Sprintf("%s[%d]", table, count[table]-1)
			}
			f.place[table] = at
		case unstable.KeyValue:
			f.value(&p, table, n, 0)
		}
	}
}

// maxDepth is how deep values are looked into: no file that means anything goes
// deeper, and each level costs a longer key.
const maxDepth = 8

// value notes a key and what is below it.
func (f *File) value(p *unstable.Parser, table string, n *unstable.Node, depth int) {
	key, at := f.path(p, n, nil)
	if table != "" {
		key = table + "." + key
	}
	f.place[key] = at
	f.below(p, key, n.Value(), depth)
}

// below notes the value of a key: where it stands, and what it holds.
func (f *File) below(p *unstable.Parser, key string, v *unstable.Node, depth int) {
	if depth > maxDepth {
		return
	}
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				f.value(p, key, it.Node(), depth+1)
			}
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			element := fmt.Sprintf("%s[%d]", key, i)
			f.place[element] = f.place[key]
			f.below(p, element, it.Node(), depth+1)
		}
	default:
		if v.Raw.Length > 0 {
			f.place[key] = v.Raw
		}
	}
}

// path joins the parts of a node's key. Parts that name an array of tables
// mean its last element.
func (f *File) path(p *unstable.Parser, n *unstable.Node, count map[string]int) (string, unstable.Range) {
	var path string
	var first unstable.Range
	for it := n.Key(); it.Next(); {
		if path != "" {
			if c := count[path]; c > 0 {
				path = fmt.Sprintf("%s[%d]", path, c-1)
			}
			path += "."
		} else {
			first = it.Node().Raw
		}
		path += string(it.Node().Data)
	}
	return path, first
}

// keysOf collects the keys of all structs below t.
func keysOf(t reflect.Type, keys []string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return keys
	}
	for i := range t.NumField() {
		name := nameOf(t.Field(i))
		if name == "" || slices.Contains(keys, name) {
			continue
		}
		keys = keysOf(t.Field(i).Type, append(keys, name))
	}
	return keys
}

// nearest returns the key that word was probably meant to be.
func nearest(word string, keys []string) string {
	best, at := "", 3
	for _, k := range keys {
		if d := distance(word, k); d < at && d < len(k) {
			best, at = k, d
		}
	}
	return best
}

// distance counts the letters to insert, drop, change or swap with their
// neighbour to turn a into b. Words beyond any key's length are far.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			d[i][j] = min(change, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
