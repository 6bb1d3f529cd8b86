package main

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

// group is a line of the table: a module, or one folder of the standard library.
type group struct {
	name      string
	removable bool // a module of somebody else
	own       int64
	gone      int64 // with the module and what nothing else imports
}

// groups are all, the largest first.
func (p packages) groups(shares map[string]int64) []group {
	by := make(map[string]*group)
	for path, share := range shares {
		name := p.groupOf(path)
		if by[name] == nil {
			by[name] = &group{name: name}
		}
		by[name].own += share
	}
	var all []group
	for name, g := range by {
		if g.removable = !strings.Contains(name, " ") && !strings.HasPrefix(name, "netport/"); g.removable {
			kept := p.without(name)
			for path, share := range shares {
				if path != others && !kept[path] {
					g.gone += share
				}
			}
		}
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b group) int { return cmp.Or(cmp.Compare(b.own, a.own), strings.Compare(a.name, b.name)) })
	return all
}

// groupOf is the name of a package's group; those that are no modules have a blank in it.
func (p packages) groupOf(path string) string {
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

// without are the packages that the program would still have if it imported none of a group.
func (p packages) without(group string) map[string]bool {
	kept := make(map[string]bool)
	var keep func(path string)
	keep = func(path string) {
		at, ok := p.by[path]
		if !ok || kept[path] || p.groupOf(path) == group {
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
