// Package conffiletest checks the reference files of configurations.
package conffiletest

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/netport/netport/proto/conffile"
)

var (
	line  = regexp.MustCompile(`^(# ?)?([a-z0-9_]+) *= `)
	table = regexp.MustCompile(`^(# ?)?\[([a-z_]+)\]$`)
)

// Reference fails the test unless the file name shows every key of a configuration once:
// with its default, which is in force there; or with an example, behind "# " where the
// default is not to have it, and in force where there has to be one (required). defaults
// makes the struct that the file is read into, as it is before it is read. Reference
// returns the file with the examples in force too, to be checked as a whole.
func Reference(t *testing.T, name string, defaults func() any, required ...string) (everything []byte) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	written := defaults()
	f, err := conffile.Parse(name, text, written)
	if err != nil {
		t.Fatal(err)
	}
	shown, everything := show(string(text))
	all, err := conffile.Parse(name+", with its examples", everything, defaults())
	if err != nil {
		t.Fatal(err)
	}
	standard, values := conffile.ValuesOf(defaults()), conffile.ValuesOf(written)
	for _, k := range conffile.KeysOf(written) {
		if n := shown[k.Name]; n != 1 {
			t.Errorf("%s shows the key %s %d times, want once", name, k.Name, n)
		}
		delete(shown, k.Name)
		if !all.Has(k.Name) {
			t.Errorf("the example of %s in %s is not read", k.Name, name)
		}
		switch zero := reflect.ValueOf(standard[k.Name]).IsZero(); {
		case slices.Contains(required, k.Name):
			if !f.Has(k.Name) || !zero {
				t.Errorf("%s: %s has to be there and has no default: have it in force", name, k.Name)
			}
		case !f.Has(k.Name) && !zero:
			t.Errorf("%s shows %s as an example, but it has a default: %v", name, k.Name, standard[k.Name])
		case f.Has(k.Name) && !reflect.DeepEqual(values[k.Name], standard[k.Name]):
			t.Errorf("%s says %s is %v, the default is %v", name, k.Name, values[k.Name], standard[k.Name])
		}
	}
	for key := range shown {
		t.Errorf("%s shows %s, which is no key", name, key)
	}
	return everything
}

// show counts the keys of a text, those of examples too, and puts these in force.
func show(text string) (keys map[string]int, everything []byte) {
	keys = make(map[string]int)
	in := ""
	for l := range strings.Lines(text) {
		if m := table.FindStringSubmatch(strings.TrimSpace(l)); m != nil {
			in = m[2] + "."
			l = strings.TrimPrefix(l, m[1])
		}
		if m := line.FindStringSubmatch(l); m != nil {
			keys[in+m[2]]++
			l = strings.TrimPrefix(l, m[1])
		}
		everything = append(everything, l...)
	}
	return keys, everything
}

// Written fails the test unless a configuration that a program writes has only keys that there
// are, each once, and says their defaults: in force, or behind "# " as an example where a key
// has a default. What the program decides itself (decided) may be anything.
func Written(t *testing.T, name string, text []byte, defaults func() any, decided ...string) {
	t.Helper()
	shown, everything := show(string(text))
	written, full := defaults(), defaults()
	if _, err := conffile.Parse(name, text, written); err != nil {
		t.Fatal(err)
	}
	if _, err := conffile.Parse(name+", with its examples", everything, full); err != nil {
		t.Fatal(err)
	}
	standard, values := conffile.ValuesOf(defaults()), conffile.ValuesOf(full)
	for key, n := range shown {
		want, known := standard[key]
		switch {
		case !known || n != 1:
			t.Errorf("%s has %s %d times (it is a key: %v)", name, key, n, known)
		case !slices.Contains(decided, key) && !reflect.ValueOf(want).IsZero() && !reflect.DeepEqual(values[key], want):
			t.Errorf("%s says %s is %v, the default is %v", name, key, values[key], want)
		}
	}
	for _, key := range decided {
		if shown[key] != 1 {
			t.Errorf("%s does not say %s", name, key)
		}
	}
}
