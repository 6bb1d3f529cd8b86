package conffile

import (
	"maps"
	"reflect"
	"slices"
)

// Values are the values of a configuration as they are written, those of keys that are
// not written by default, by the names of the keys ("dial.allow").
type Values map[string]any

// ValuesOf returns the values of v, a struct as Load fills it or a pointer to one.
func ValuesOf(v any) Values {
	values, at := make(Values), reflect.Indirect(reflect.ValueOf(v))
	for _, k := range KeysOf(v) {
		values[k.Name] = at.FieldByIndex(k.index).Interface()
	}
	return values
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
