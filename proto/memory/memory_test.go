package memory

import "testing"

// TestFit: what the runtime gets leaves a fifth of the group and the program's own
// pages, and is never so little that nothing runs.
func TestFit(t *testing.T) {
	const mebibyte = 1 << 20
	for group, want := range map[int64]int64{
		1 * mebibyte:    least,
		16 * mebibyte:   least,
		64 * mebibyte:   64*mebibyte/5*4 - program,
		1024 * mebibyte: 1024*mebibyte/5*4 - program,
	} {
		if got := fit(group); got != want {
			t.Errorf("a group of %d bytes: %d, want %d", group, got, want)
		}
	}
}
