//go:build !linux

package network

import "time"

var started = time.Now()

func readClocks() reading {
	return reading{running: time.Since(started), wall: time.Now().Round(0)}
}
