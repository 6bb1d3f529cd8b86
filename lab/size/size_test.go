package size

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// example imports a library that brings a package of the standard library along, which nothing else imports.
var example = packages{root: "example.org/program", by: map[string]goPackage{
	"runtime":             {ImportPath: "runtime", Standard: true},
	"fmt":                 {ImportPath: "fmt", Standard: true, Imports: []string{"runtime"}},
	"encoding/gob":        {ImportPath: "encoding/gob", Standard: true, Imports: []string{"fmt"}},
	"example.net/lib.v3":  {ImportPath: "example.net/lib.v3", Module: &goModule{"example.net/lib.v3"}, Imports: []string{"encoding/gob"}},
	"example.org/program": {ImportPath: "example.org/program", Module: &goModule{"example.org/program"}, Imports: []string{"fmt", "example.net/lib.v3"}},
}}

func TestSymbolsBelongToTheirPackages(t *testing.T) {
	for symbol, want := range map[string]string{
		"main.main":                                            "example.org/program",
		"encoding/gob.(*Encoder).Encode":                       "encoding/gob",
		"encoding/gob.(*Encoder).Encode.func1":                 "encoding/gob",
		"encoding/gob..stmp_3":                                 "encoding/gob",
		"example.net/lib%2ev3.Sort[go.shape.fmt.State]":        "example.net/lib.v3",
		"type:.eq.example.net/lib%2ev3.Pair":                   "example.net/lib.v3",
		"go:itab.*example.net/lib%2ev3.reader,fmt.State":       "example.net/lib.v3",
		"fmt.Append[example.net/lib%2ev3.Pair]":                "fmt",
		"type:.eq.struct { example.net/lib%2ev3.a int; b int}": others,
		"go:string.*": others,
	} {
		if got := example.owner(symbol); got != want {
			t.Errorf("%s belongs to %q, want %q", symbol, got, want)
		}
	}
}

func TestAModuleGoesWithWhatOnlyItImports(t *testing.T) {
	shares := example.shares([]symbol{
		{"main.main", 100, true}, {"fmt.Print", 200, true}, {"runtime.main", 400, true},
		{"example.net/lib%2ev3.F", 100, true}, {"encoding/gob.F", 200, true}, {"encoding/gob.names", 50, false},
	}, 2050) // 1,000 of code, 50 of data, and as much as the code without a name
	var sum int64
	for _, share := range shares {
		sum += share
	}
	if sum != 2050 {
		t.Errorf("%d of 2050 bytes are shared out: %v", sum, shares)
	}
	for _, p := range example.parts(shares) {
		switch {
		case p.Name == "example.net/lib.v3":
			if !p.Removable || p.Own != 200 || p.Gone != 200+450 {
				t.Errorf("got %+v, want 200 of its own, and 650 with encoding/gob", p)
			}
		case strings.HasPrefix(p.Name, "Go: ") && p.Removable:
			t.Errorf("%s is a module that could go", p.Name)
		}
	}
}

// A program whose methods are looked up by a name that the linker cannot see is found by what the linker itself says, and
// one with a constant name is not.
func TestMethodsLookedUpByNameAreFound(t *testing.T) {
	for name, wrong := range map[string]bool{`os.Args[0]`: true, `"Close"`: false} {
		dir := t.TempDir()
		source := "package main\n\nimport (\"os\"; \"reflect\")\n\nfunc main() { reflect.ValueOf(os.Stdin).MethodByName(" + name + ") }\n"
		if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-ldflags", "-dumpdep", "-o", filepath.Join(dir, "program"), "main.go")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		deps, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, tail(deps))
		}
		err = keepsNoMethods(bytes.NewReader(deps))
		if got := err != nil; got != wrong {
			t.Errorf("MethodByName(%s): %v", name, err)
		}
		if wrong && !strings.HasPrefix(err.Error(), "main.main looks up methods") {
			t.Errorf("the culprit is not named: %v", err)
		}
	}
	if err := keepsNoMethods(strings.NewReader("")); err == nil {
		t.Error("no output at all passes")
	}
}
