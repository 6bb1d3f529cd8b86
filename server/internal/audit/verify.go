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
	// what is wrong with it; empty if the chain is whole.
	Broken string `json:"broken,omitempty"`
	// Open is set where the last line has no end: it is being written now, or a crash
	// has cut it short.
	Open bool `json:"open,omitempty"`
}

// Verify follows the chain through all audit files of a folder, oldest first, up
// to the first line that breaks it. head is a hash that was noted before, or
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
	for _, f := range files {
		if err := v.file(f); err != nil {
			return v.Verdict, fmt.Errorf("verify audit: %w", err)
		}
		if v.Broken != "" {
			break
		}
	}
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
	head  string
	last  hash
	place string // of the last line
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
			v.Broken = place + ": it is longer than any record"
			return nil
		case err != nil:
			return err
		}
		if v.line(place, bytes.TrimSuffix(line, []byte("\n"))); v.Broken != "" {
			return nil
		}
	}
}

func (v *follower) line(place string, line []byte) {
	var l link
	if err := json.Unmarshal(line, &l); err != nil || l.Previous == "" {
		v.Broken = place + ": it is no record"
		return
	}
	switch {
	case v.Records == 0:
		v.First, v.Begins = l.Time, l.Previous == hash{}.String()
		v.Noted = l.Previous == v.head
	case l.Previous != v.last.String():
		v.Broken = fmt.Sprintf("%s: it does not follow %s: there a line was altered, removed, added or moved", place, v.place)
		return
	}
	v.Records++
	v.Last, v.last, v.place = l.Time, hashOf(line), place
	v.Noted = v.Noted || v.last.String() == v.head
	switch l.Answer {
	case Lost:
		v.Lost += l.Count
	case Torn:
		v.Torn++
	}
}
