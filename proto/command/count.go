package command

import "strconv"

// Count writes a number of things that have a plain plural: "1 grant", "2 grants".
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
