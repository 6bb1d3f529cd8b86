package size

import (
	"cmp"
	"slices"
	"strings"
)

// packages are all of a program, by import path.
type packages struct {
	by   map[string]goPackage
	root string // the program's own: main
}

// others is the owner of what belongs to no package.
const others = ""

// owner is the package that a symbol belongs to. Instances of generic functions belong to the function's package.
func (p packages) owner(symbol string) string {
	name := strings.ReplaceAll(symbol, "%2e", ".")
	for _, made := range []string{"type:.eq.", "type:.hash.", "go:itab."} { // by the compiler, for a type
		name = strings.TrimPrefix(name, made)
	}
	name = strings.TrimLeft(name, "*")
	if i := strings.IndexAny(name, "[(,{ "); i >= 0 {
		name = name[:i]
	}
	if strings.HasPrefix(name, "main.") {
		return p.root
	}
	for {
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			return others
		}
		name = name[:i]
		if _, ok := p.by[name]; ok {
			return name
		}
	}
}

// shares divides a program of so many bytes among its packages: to each its symbols, and of what has no name a part as
// large as its part of the code.
func (p packages) shares(symbols []symbol, whole int64) map[string]int64 {
	shares, code := make(map[string]int64), make(map[string]int64)
	rest, allCode := whole, int64(0)
	for _, s := range symbols {
		owner := p.owner(s.name)
		shares[owner] += s.size
		rest -= s.size
		if s.code {
			code[owner] += s.size
			allCode += s.size
		}
	}
	for owner, size := range code {
		shares[owner] += rest * size / allCode
	}
	return shares
}

// Part is what a module has of the program, or one folder of the standard library.
type Part struct {
	Name      string
	Removable bool  // a module of somebody else
	Own       int64 // bytes
	Gone      int64 // bytes that would go with it: its own and those of packages that nothing else imports
}

// Parts divides the portal, of so many bytes, into the modules that it is made of, the largest first. What has no name in
// the program (line tables, types, strings) is shared out by the size of code.
func Parts(arch string, whole int64) ([]Part, error) {
	all, err := listed(arch)
	if err != nil {
		return nil, err
	}
	symbols, err := symbolsOf(arch)
	if err != nil {
		return nil, err
	}
	return all.parts(all.shares(symbols, whole)), nil
}

func (p packages) parts(shares map[string]int64) []Part {
	by := make(map[string]*Part)
	for path, share := range shares {
		name := p.partOf(path)
		if by[name] == nil {
			by[name] = &Part{Name: name}
		}
		by[name].Own += share
	}
	var all []Part
	for name, part := range by {
		if part.Removable = !strings.Contains(name, " ") && !strings.HasPrefix(name, "netport/"); part.Removable {
			kept := p.without(name)
			for path, share := range shares {
				if path != others && !kept[path] {
					part.Gone += share
				}
			}
		}
		all = append(all, *part)
	}
	slices.SortFunc(all, func(a, b Part) int { return cmp.Or(cmp.Compare(b.Own, a.Own), strings.Compare(a.Name, b.Name)) })
	return all
}

// partOf is the name of a package's part; those that are no modules have a blank in it.
func (p packages) partOf(path string) string {
	at, ok := p.by[path]
	switch {
	case !ok:
		return "no package: tables of the linker"
	case at.Standard || at.Module == nil:
		first, _, _ := strings.Cut(path, "/")
		return "Go: " + first
	default:
		return strings.TrimPrefix(at.Module.Path, "github.com/netport/")
	}
}

// without are the packages that the program would still have if it imported none of a part.
func (p packages) without(part string) map[string]bool {
	kept := make(map[string]bool)
	var keep func(path string)
	keep = func(path string) {
		at, ok := p.by[path]
		if !ok || kept[path] || p.partOf(path) == part {
			return
		}
		kept[path] = true
		for _, imported := range at.Imports {
			keep(cmp.Or(at.ImportMap[imported], imported))
		}
	}
	keep(p.root)
	keep("runtime") // every program has it, imported or not
	return kept
}
