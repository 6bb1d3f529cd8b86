//go:build !linux

package command

// GuardMemory has nothing to call: other systems decide by their own rules who may
// read a process.
func GuardMemory() {}
