package memory

import (
	"bufio"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBack gives the pages of the program's file back to the kernel's cache. Where they
// cannot be found they stay.
func giveBack() {
	list, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer list.Close()
	for _, m := range ofProgram(list, reflect.ValueOf(giveBack).Pointer()) {
		// The pages come back as they are in the file. If that is refused, they stay.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is a part of a process's address space.
type mapping struct{ from, to uintptr }

// ofProgram returns the mappings of the file that code lies in, as smaps (proc_pid_smaps(5))
// lists them, in which all is as in the file: nothing may be written there, and nothing was,
// by the loader of a position-independent program or by a debugger.
func ofProgram(smaps io.Reader, code uintptr) []mapping {
	type part struct {
		mapping
		file string // device and inode
		same bool   // as the file
	}
	var parts []part
	program := ""
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		last := len(parts) - 1
		switch fields[0] {
		case "Anonymous:", "Swap:", "Locked:":
			if last >= 0 && fields[1] != "0" {
				parts[last].same = false
			}
		default:
			m, ok := parseMapping(fields[0])
			if !ok || len(fields) < 5 {
				continue
			}
			p := part{mapping: m, file: fields[3] + " " + fields[4], same: fields[1] == "r-xp" || fields[1] == "r--p"}
			if m.from <= code && code < m.to {
				program = p.file
			}
			parts = append(parts, p)
		}
	}
	var found []mapping
	for _, p := range parts {
		if p.same && p.file == program {
			found = append(found, p.mapping)
		}
	}
	return found
}

func parseMapping(s string) (m mapping, ok bool) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return m, false
	}
	begin, err1 := strconv.ParseUint(from, 16, strconv.IntSize)
	end, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
	return mapping{uintptr(begin), uintptr(end)}, err1 == nil && err2 == nil && begin < end
}
