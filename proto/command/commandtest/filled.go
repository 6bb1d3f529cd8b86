package commandtest

import (
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/netport/netport/proto/endpoint"
)

// LongName is as long as a name can be.
var LongName = strings.Repeat("a-long-name.", 6)[:63]

// Filled returns a value that has something in every field that it exports, two of whatever
// it has a list of, and the longest names.
func Filled[T any]() (v T) {
	fill(reflect.ValueOf(&v).Elem())
	return v
}

func fill(v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.Date(2026, 11, 23, 12, 34, 56, 0, time.UTC)
		return
	case *netip.Addr:
		*p = netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:5678")
		return
	case *netip.AddrPort:
		*p = netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535")
		return
	case *endpoint.Endpoint:
		*p = endpoint.FromAddrPort(endpoint.TCP, netip.MustParseAddrPort("[2001:db8:1234:5678:9abc:def0:1234:5678]:65001"))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(LongName)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(99)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(99)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1234.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	}
}
