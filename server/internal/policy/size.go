package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/netport/netport/proto/grant"
)

// unit is a unit of sizes.
type unit struct {
	name  string
	bytes uint64
}

var units = []unit{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// parseSize reads a whole number of bytes with its unit, as in "50GB".
func parseSize(s string) (uint64, error) {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	name := s[len(digits):]
	if digits == "" {
		return 0, fmt.Errorf("%.50q is no size: write a whole number and its unit, as in \"50GB\"", s)
	}
	if name == "" {
		return 0, fmt.Errorf("%.50q has no unit: write %sMB, say", s, digits)
	}
	for _, u := range units {
		if u.name != name {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n > grant.MaxBytes/u.bytes {
			return 0, fmt.Errorf("%.50q is more than any limit can be", s)
		}
		if n == 0 {
			return 0, fmt.Errorf("%.50q is nothing: leave it out for no limit", s)
		}
		return n * u.bytes, nil
	}
	var names []string
	for _, u := range units {
		if strings.EqualFold(u.name, name) {
			return 0, fmt.Errorf("%.50q: write the unit %s", s, u.name)
		}
		names = append([]string{u.name}, names...)
	}
	return 0, fmt.Errorf("%.50q: the units are %s", s, strings.Join(names, ", "))
}

// sizeText writes a size with the largest unit in which it is whole.
func sizeText(n uint64) string {
	for _, u := range units {
		if n%u.bytes == 0 {
			return strconv.FormatUint(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}
