package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The parts of bbolt's page layout that checkPages reads. Every page begins
// with a header: its own number (8 bytes), its kind and how many elements
// it has (2 bytes each), and how many pages more belong to it (4 bytes). The
// elements follow, 16 bytes each, which point to keys and values behind them.
const (
	pageHeader   = 16
	pageElement  = 16
	bucketHeader = 16 // first in the value of a bucket: root page and sequence

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketFlag = 0x01 // of a leaf's element
	countBelow = 0xFFFF
	firstPage  = 2 // behind the two meta pages
)

// pages walks a bbolt file as bytes. bbolt follows every number in its pages
// without a question: one flipped bit makes it read beyond the file, follow a
// branch round for ever, or gather four billion pages in memory. So the walk
// looks at each number first: every page is where it says it is, is used once,
// and has all it points to within itself.
type pages struct {
	file  io.ReaderAt
	size  int64  // of a page
	count uint64 // that belong to the file
	used  map[uint64]bool
}

func (p *pages) check(root, freelist uint64) error {
	if err := p.tree(root); err != nil {
		return err
	}
	b, kind, count, err := p.read(freelist)
	if err != nil {
		return err
	}
	if kind != freelistPage || count == countBelow || count*8 > len(b)-pageHeader {
		return fmt.Errorf("its page %d is no list of free pages", freelist)
	}
	return nil
}

// read returns a page with all that belongs to it.
func (p *pages) read(id uint64) (b []byte, kind, count int, err error) {
	wrong := fmt.Errorf("its page %d is broken", id)
	if id < firstPage || id >= p.count {
		return nil, 0, 0, fmt.Errorf("it refers to a page %d, and has %d", id, p.count)
	}
	var h [pageHeader]byte
	if _, err := p.file.ReadAt(h[:], int64(id)*p.size); err != nil {
		return nil, 0, 0, wrong
	}
	more := uint64(binary.NativeEndian.Uint32(h[12:]))
	if binary.NativeEndian.Uint64(h[:]) != id || more >= p.count-id {
		return nil, 0, 0, wrong
	}
	for n := id; n <= id+more; n++ {
		if p.used[n] {
			return nil, 0, 0, fmt.Errorf("its page %d is used twice", n)
		}
		p.used[n] = true
	}
	b = make([]byte, int64(more+1)*p.size)
	if _, err := p.file.ReadAt(b, int64(id)*p.size); err != nil {
		return nil, 0, 0, wrong
	}
	return b, int(binary.NativeEndian.Uint16(h[8:])), int(binary.NativeEndian.Uint16(h[10:])), nil
}

// tree checks a page and all below it.
func (p *pages) tree(id uint64) error {
	b, kind, count, err := p.read(id)
	if err != nil {
		return err
	}
	if err := p.elements(b, kind, count); err != nil {
		return fmt.Errorf("in its page %d: %w", id, err)
	}
	return nil
}

var errElement = errors.New("an element is broken")

// elements checks what a branch or a leaf points to. b is a page, or a small
// bucket that stands in a value in the form of a page.
func (p *pages) elements(b []byte, kind, count int) error {
	if kind != branchPage && kind != leafPage || kind == branchPage && count == 0 || count*pageElement > len(b)-pageHeader {
		return errElement
	}
	for i := range count {
		at := uint64(pageHeader + i*pageElement)
		e := b[at : at+pageElement]
		word := func(n int) uint64 { return uint64(binary.NativeEndian.Uint32(e[4*n:])) }
		if kind == branchPage { // position and size of the key, page
			if at+word(0)+word(1) > uint64(len(b)) {
				return errElement
			}
			if err := p.tree(binary.NativeEndian.Uint64(e[8:])); err != nil {
				return err
			}
			continue
		}
		start := at + word(1) + word(2) // flags, position, sizes of key and value
		end := start + word(3)
		if end > uint64(len(b)) || word(0)&^bucketFlag != 0 {
			return errElement
		}
		if word(0) == bucketFlag {
			if err := p.bucket(b[start:end]); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket checks the value that stands for a bucket.
func (p *pages) bucket(v []byte) error {
	if len(v) < bucketHeader {
		return errElement
	}
	if root := binary.NativeEndian.Uint64(v); root != 0 {
		return p.tree(root)
	}
	inline := v[bucketHeader:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return errElement
	}
	return p.elements(inline, leafPage, int(binary.NativeEndian.Uint16(inline[10:])))
}
