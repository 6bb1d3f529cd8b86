//go:build !linux

package doctor

import "runtime"

// System returns what portals do on Linux and cannot do here.
func System() (lines []Line) {
	for _, text := range missing(runtime.GOOS) {
		lines = append(lines, Line{What: runtime.GOOS, State: OK, Text: "unlike on Linux, " + text})
	}
	return lines
}
