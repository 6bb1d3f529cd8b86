package conffile

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Key is one key that a file may have outside of arrays of tables.
type Key struct {
	Name  string // with the tables above it: "dial.allow"
	typ   reflect.Type
	index []int // of its field, for FieldByIndex
}

// KeysOf returns the keys of v, a struct as Load takes it or a pointer to one, in the
// order of its fields.
func KeysOf(v any) []Key {
	return appendKeys(nil, "", nil, reflect.Indirect(reflect.ValueOf(v)).Type())
}

func appendKeys(list []Key, table string, above []int, t reflect.Type) []Key {
	for i := range t.NumField() {
		field, index := t.Field(i), append(slices.Clone(above), i)
		switch name := nameOf(field); {
		case name == "":
		case isTable(field.Type):
			list = appendKeys(list, table+name+".", index, field.Type)
		default:
			list = append(list, Key{table + name, field.Type, index})
		}
	}
	return list
}

// nameOf returns the key of a field; it is empty where the field has none.
func nameOf(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
	return name
}

func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != timeType && !reflect.PointerTo(t).Implements(textType)
}

var (
	timeType = reflect.TypeFor[time.Time]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// want says what is a value of a type.
func want(t reflect.Type) string {
	switch {
	case t == timeType:
		return "a time like 2027-01-31T18:00:00Z"
	case reflect.PointerTo(t).Implements(textType), t.Kind() == reflect.String:
		return "a text in quotes"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64, reflect.Uint16, reflect.Uint32, reflect.Uint8:
		return "a whole number"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return `a list of texts like ["a", "b"]`
		}
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a table"
	}
	return "another kind of value"
}

// find returns the type of a key, of which arrays of tables are left out: what
// "forward.from" of [[forward]] is.
func find(t reflect.Type, key []string) (reflect.Type, bool) {
	for _, part := range key {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Map:
			t = t.Elem()
			continue
		case reflect.Struct:
		default:
			return nil, false
		}
		var below reflect.Type
		for i := range t.NumField() {
			if nameOf(t.Field(i)) == part {
				below = t.Field(i).Type
			}
		}
		if below == nil {
			return nil, false
		}
		t = below
	}
	return t, true
}

// hint says what an unknown key was probably meant to be; it is empty where nothing is
// near.
func hint(t reflect.Type, key []string) string {
	if len(key) == 0 {
		return ""
	}
	word := key[len(key)-1]
	if in := tablesOf(t, word, ""); len(in) > 0 {
		return fmt.Sprintf("; it is a key of %s", strings.Join(in, " and "))
	}
	if near := nearest(word, keysOf(t, nil)); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// tablesOf names the tables that have a key of this name, as they are written.
func tablesOf(t reflect.Type, word, table string) (in []string) {
	array := false
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		array = array || t.Kind() == reflect.Slice
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		name := nameOf(t.Field(i))
		if name == "" {
			continue
		}
		if name == word {
			switch {
			case table == "":
				in = append(in, "no table: it stands above the first [table]")
			case array:
				in = append(in, "[["+table+"]]")
			default:
				in = append(in, "["+table+"]")
			}
		}
		below := name
		if table != "" {
			below = table + "." + name
		}
		in = append(in, tablesOf(t.Field(i).Type, word, below)...)
	}
	return slices.Compact(in)
}
