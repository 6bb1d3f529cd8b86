//go:build !linux

package exit

import "net"

// Elsewhere a connected socket is told at most that nobody listens; on Windows package net
// has it told nothing.

func wantErrors(uintptr, string) {}

func forgetErrors(*net.UDPConn) {}
