package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Verdict is what Verify finds in the audit files of a folder.
type Verdict struct {
	Records int       `json:"records"`
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	Lost    uint64    `json:"lost"` // records that could not be written, as the lines say
	Torn    int       `json:"torn"` // lines that were cut short by a crash, as the lines say
	// Begins is set where the first line is the first ever; else older files have
	// been put out, and what they held is not known.
	Begins bool   `json:"begins"`
	Head   string `json:"head"` // hash of the last line
	// Noted is set where the head that was asked for is one of the chain's lines.
	Noted bool `json:"noted"`
	// Broken names the first line that does not follow the one before, and says
	// what is wrong with it; empty if the chain is whole, or was begun anew.
	Broken string `json:"broken,omitempty"`
	// Anew are such lines after which a server that was started has begun the chain anew;
	// those above maxAnew are left out.
	Anew []string `json:"anew,omitempty"`
	// Settled is set where the head that was asked for stands behind all that is broken:
	// whoever noted it knew.
	Settled bool `json:"settled,omitempty"`
	// Open is set where the last line has no end: it is being written now, or a crash
	// has cut it short.
	Open bool `json:"open,omitempty"`
}

// maxAnew is how many places a Verdict names where the chain was begun anew.
const maxAnew = 10

// Verify follows the chain through all audit files of a folder, oldest first. From a line
// that breaks it, it goes on where it was begun anew. head is a hash that was noted before, or
// empty. A server may go on writing meanwhile.
func Verify(folder, head string) (Verdict, error) {
	files, err := openAll(folder)
	if err != nil {
		return Verdict{}, fmt.Errorf("verify audit: %w", err)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	v := follower{head: head}
	for i, f := range files {
		if err := v.file(f); err != nil {
			return v.Verdict, fmt.Errorf("verify audit: %w", err)
		}
		if v.Open && i < len(files)-1 {
			v.Open = false
			v.breaks(filepath.Base(f.Name()) + ": " + errForeign.Error())
		}
	}
	v.readLast()
	if v.Records > 0 {
		v.Head = v.last.String()
	}
	return v.Verdict, nil
}

// openAll opens the audit files, oldest first. If a file is put aside meanwhile,
// all are opened again.
func openAll(folder string) ([]*os.File, error) {
	for {
		files, err := openNewestFirst(folder)
		if err != nil {
			return files, err
		}
		if len(files) == 0 || isFile(files[0], func() (fs.FileInfo, error) { return os.Stat(fileOf(folder, 0)) }) {
			slices.Reverse(files)
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
	}
}

// openNewestFirst opens the audit files in this order, so that one which is just
// being put aside is met again, and never missed.
func openNewestFirst(folder string) (files []*os.File, err error) {
	for i := range maxFiles {
		f, err := os.Open(fileOf(folder, i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		if slices.ContainsFunc(files, func(met *os.File) bool { return isFile(met, f.Stat) }) {
			f.Close()
			continue
		}
		files = append(files, f)
	}
	return files, nil
}

// isFile reports whether the open file f is the one that stat finds.
func isFile(f *os.File, stat func() (fs.FileInfo, error)) bool {
	a, errA := f.Stat()
	b, errB := stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// follower walks along the chain.
type follower struct {
	Verdict
	head   string
	last   hash
	place  string // of the last line
	unread []byte // the last line, where it was not parsed
}

// file follows the chain through one file.
func (v *follower) file(f *os.File) error {
	name := filepath.Base(f.Name())
	r := bufio.NewReaderSize(f, maxLine+1)
	for n := 1; ; n++ {
		place := fmt.Sprintf("%s:%d", name, n)
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			v.Open = len(line) > 0
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			v.breaks(place + ": it is longer than any record")
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		case err != nil:
			return err
		default:
			v.line(place, bytes.TrimSuffix(line, []byte("\n")))
		}
	}
}

// breaks notes what breaks the chain, unless it is broken already.
func (v *follower) breaks(what string) {
	if v.Broken == "" {
		v.Broken, v.Settled = what, false
	}
}

// follows takes a line that is as this package writes them and follows the one before,
// without parsing it: what its fields say the line after it vouches for. Those about the
// log itself are read.
func (v *follower) follows(place string, line []byte) bool {
	rest, ours := bytes.CutPrefix(line, []byte(lineHead))
	rest, next := bytes.CutPrefix(rest, []byte(v.last.String()+`",`))
	if !ours || !next || v.Records == 0 || v.Broken != "" || !bytes.HasSuffix(rest, []byte("}")) || bytes.Contains(rest, []byte(`"event":"audit"`)) {
		return false
	}
	v.count(place, line)
	v.unread = append(v.unread[:0], line...)
	return true
}

// readLast parses the last line, if it was not.
func (v *follower) readLast() {
	if len(v.unread) == 0 {
		return
	}
	var l link
	if json.Unmarshal(v.unread, &l) != nil {
		v.breaks(v.place + ": it is no record")
		return
	}
	v.Last = l.Time
}

// count takes a line as the last of the chain.
func (v *follower) count(place string, line []byte) {
	v.Records++
	v.last, v.place = hashOf(line), place
	if v.head != "" && v.last.String() == v.head {
		v.Noted, v.Settled = true, true
	}
}

func (v *follower) line(place string, line []byte) {
	if v.follows(place, line) {
		return
	}
	var l link
	if err := json.Unmarshal(line, &l); err != nil || l.Previous == "" {
		v.breaks(place + ": it is no record")
		return
	}
	switch {
	case v.Broken != "" && l.Event == "audit" && l.Answer == Broken:
		if len(v.Anew) < maxAnew {
			v.Anew = append(v.Anew, v.Broken)
		}
		v.Broken = ""
		if v.Records == 0 {
			v.First = l.Time
		}
	case v.Broken != "":
		return
	case v.Records == 0:
		v.First, v.Begins = l.Time, l.Previous == hash{}.String()
		v.Noted = l.Previous == v.head
	case l.Previous != v.last.String():
		v.breaks(fmt.Sprintf("%s: it does not follow %s: there a line was altered, removed, added or moved", place, v.place))
		return
	}
	v.count(place, line)
	v.Last, v.unread = l.Time, v.unread[:0]
	switch l.Answer {
	case Lost:
		v.Lost += l.Count
	case Torn:
		v.Torn++
	}
}
