// Package size says how large netport-portal is (goal S1) and what its dependencies have of that. It is used from the root
// of the tree, and builds the portal as packagers do.
package size

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Goal is S1: how many bytes a stripped portal is to have at most.
const Goal int64 = 10e6

// Ceiling is how many bytes it has at most while the goal is not reached, so that it never grows unseen: a change that
// needs more raises it, and says in its commit for what. A lower size lowers it.
const Ceiling int64 = 12.45e6

// Architectures are those of the goal, of Linux.
var Architectures = []string{"amd64", "arm"}

// goTool runs a go command in the portal's module alone, as packagers build it. It returns both outputs.
func goTool(arch string, args ...string) (out, errs []byte, _ error) {
	cmd := exec.Command("go", append([]string{args[0], "-C", "portal"}, args[1:]...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS=linux", "GOARCH="+arch)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, nil, fmt.Errorf("go %s for linux/%s: %w\n%s", args[0], arch, err, tail(stderr.Bytes()))
	}
	return stdout.Bytes(), stderr.Bytes(), nil
}

// tail is the end of a long output: the linker's list of dependencies stands before its error.
func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// Stripped builds the portal as it is shipped and returns its size in bytes. It fails if the linker had to keep every
// exported method, because something looks methods up by name.
func Stripped(arch string) (int64, error) {
	dir, err := os.MkdirTemp("", "netport-size-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "portal")
	_, deps, err := goTool(arch, "build", "-trimpath", "-ldflags", "-s -w -dumpdep", "-o", file, ".")
	if err != nil {
		return 0, err
	}
	if err := keepsNoMethods(bytes.NewReader(deps)); err != nil {
		return 0, fmt.Errorf("linux/%s: %w", arch, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// keepsNoMethods looks through what the linker says of dependencies (-dumpdep). A function that looks up methods by a
// name that is not constant makes it keep all exported methods of all types: for package text/template, which one call
// of a library may bring in, that was 2.2 MB.
func keepsNoMethods(deps io.Reader) error {
	lines := bufio.NewScanner(deps)
	lines.Buffer(nil, 1<<20) // names of generic functions are long
	seen := false
	for lines.Scan() {
		to := lines.Text()
		if from, rest, ok := strings.Cut(to, " -> "); ok {
			seen = true
			to = rest
			if strings.Contains(from, "<ReflectMethod>") {
				to = from
			}
		}
		if name, _, ok := strings.Cut(to, " <"); ok && strings.Contains(to, "<ReflectMethod>") {
			return fmt.Errorf("%s looks up methods by name, so that the linker keeps every exported method: do without what calls it", name)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !seen {
		return errors.New("the linker has said nothing of dependencies (-dumpdep)")
	}
	return nil
}

// symbol is a piece of the program that has a name.
type symbol struct {
	name string
	size int64
	code bool
}

// symbolsOf builds the portal with its symbol table and returns what has a place in the file, but the line tables.
func symbolsOf(arch string) ([]symbol, error) {
	dir, err := os.MkdirTemp("", "netport-size-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "portal")
	if _, _, err := goTool(arch, "build", "-trimpath", "-ldflags", "-w", "-o", file, "."); err != nil {
		return nil, err
	}
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	var all []symbol
	for _, s := range table {
		if s.Size == 0 || int(s.Section) >= len(f.Sections) {
			continue
		}
		section := f.Sections[s.Section]
		if section.Type == elf.SHT_NOBITS || section.Name == ".gopclntab" {
			continue
		}
		all = append(all, symbol{s.Name, int64(s.Size), section.Flags&elf.SHF_EXECINSTR != 0})
	}
	return all, nil
}

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	ImportMap  map[string]string
	Module     *goModule
}

type goModule struct{ Path string }

// listed are the packages that the portal is made of.
func listed(arch string) (packages, error) {
	out, _, err := goTool(arch, "list", "-deps", "-json=ImportPath,Standard,Imports,ImportMap,Module", ".")
	if err != nil {
		return packages{}, err
	}
	all := packages{by: make(map[string]goPackage)}
	for list := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return packages{}, err
		}
		all.by[p.ImportPath] = p
		all.root = p.ImportPath // the last is the one that was asked for
	}
}
