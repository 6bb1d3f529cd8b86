package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxLine is the longest line in bytes, without its end. Records are far below it.
const maxLine = 64 << 10

// maxTorn is how much of a torn line is kept in the record that notes it.
const maxTorn = 256

// hash is the SHA-256 of a line without its end; zero before the first line.
type hash [sha256.Size]byte

func hashOf(line []byte) hash {
	if line == nil {
		return hash{}
	}
	return sha256.Sum256(line)
}

// HeadLen is how many hexadecimal digits the hash of a line has.
const HeadLen = 2 * sha256.Size

// IsHead reports whether s has the form of a line's hash.
func IsHead(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

func (h hash) String() string { return hex.EncodeToString(h[:]) }

// link is a record as it stands in the file.
type link struct {
	Previous string `json:"previous"` // hash of the line before
	Record
}

// encode returns the line of a record, without its end: printable text only, also
// where names or reasons are not.
func encode(previous hash, r Record) ([]byte, error) {
	line, err := json.Marshal(link{previous.String(), r})
	if err != nil {
		return nil, err
	}
	if len(line) > maxLine {
		return nil, fmt.Errorf("a record of %d bytes: a line has %d at most", len(line), maxLine)
	}
	return escape(line), nil
}

// escape writes what is not printable, such as marks that turn the direction of
// text, as \u escapes. Such runes can stand only inside the strings of the JSON.
func escape(line []byte) []byte {
	plain := func(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
	if !bytes.ContainsFunc(line, func(r rune) bool { return !plain(r) }) {
		return line
	}
	var b []byte
	for _, r := range string(line) {
		if plain(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		if r > 0xffff { // JSON writes it as a pair of surrogates
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
			continue
		}
		b = fmt.Appendf(b, `\u%04x`, r)
	}
	return b
}

// lineHead is what every line begins with.
const lineHead = `{"previous":"`

// errForeign is of a file that has something else at its end than a line of ours, or a
// part of one: zeros after a crash of the machine, or another's text.
var errForeign = errors.New("what is at its end is no part of a record")

// end is how a file ends.
type end struct {
	last []byte // the last whole line; nil in an empty file
	torn string // what follows it, at most maxTorn bytes
	size int64  // of all whole lines
}

// readEnd reads the end of an open file. With errForeign it returns what is before that.
func readEnd(f *os.File) (end, error) {
	info, err := f.Stat()
	if err != nil {
		return end{}, err
	}
	if !info.Mode().IsRegular() {
		return end{}, nil // a device has no end to go on from
	}
	from := max(info.Size()-2*(maxLine+1), 0)
	b := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return end{}, err
	}
	cut := bytes.LastIndexByte(b, '\n') + 1
	e := end{size: from + int64(cut)}
	if cut > 0 {
		whole := b[:cut-1]
		e.last = whole[bytes.LastIndexByte(whole, '\n')+1:]
	}
	if rest := b[cut:]; len(rest) > 0 {
		if len(rest) > maxLine || !bytes.HasPrefix(rest, []byte(lineHead)) && !strings.HasPrefix(lineHead, string(rest)) {
			return e, errForeign
		}
		e.torn = string(rest[:min(len(rest), maxTorn)])
	}
	return e, nil
}

// lastLine returns the last whole line of a file, nil if there is no such file or
// no line in it.
func lastLine(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e, err := readEnd(f)
	if errors.Is(err, errForeign) {
		err = nil
	}
	return e.last, err
}
