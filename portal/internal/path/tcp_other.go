//go:build !linux

package path

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// retrySoon does nothing: the option it sets exists on Linux.
func retrySoon(syscall.RawConn, time.Duration) error { return nil }

// limitSegments does nothing: only Linux tells of segments that get lost.
func limitSegments(syscall.RawConn, int) error { return nil }

// swallowed cannot tell.
func swallowed(*net.TCPConn) (bool, error) { return false, errors.ErrUnsupported }
