package conffile

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Values are the values of a configuration as they are written, those of keys that are
// not written by default, by the names of the keys ("dial.allow").
type Values map[string]any

// ValuesOf returns the values of v, a struct as Load fills it or a pointer to one.
func ValuesOf(v any) Values {
	values := make(Values)
	values.add("", reflect.Indirect(reflect.ValueOf(v)))
	return values
}

func (values Values) add(table string, v reflect.Value) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("toml"), ",")
		switch {
		case name == "":
		case isTable(v.Field(i).Type()):
			values.add(table+name+".", v.Field(i))
		default:
			values[table+name] = v.Field(i).Interface()
		}
	}
}

// Changed names the keys that have other values in b than in a, sorted.
func Changed(a, b Values) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(b)) {
		if !reflect.DeepEqual(a[key], b[key]) {
			keys = append(keys, key)
		}
	}
	return keys
}
