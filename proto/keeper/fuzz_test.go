package keeper

import (
	"bytes"
	"testing"

	"github.com/netport/netport/proto/wire"
)

// FuzzRevocations has the file of revocations as a crash, or somebody, may leave it: what is read of it is what
// was written, up to the first byte that is not right.
func FuzzRevocations(f *testing.F) {
	file := []byte(magic)
	for n := range byte(3) {
		b := wire.AppendMessage(nil, revocation(uint64(n)+1, n+1))
		file = append(append(file, b...), sumOf(b)...)
	}
	f.Add(file)
	f.Add(file[:len(file)-1])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		good, list := parseLog(b)
		var again []byte
		if good > 0 {
			again = []byte(magic)
		}
		for _, r := range list {
			m := wire.AppendMessage(nil, wire.Revocation{Revocation: r})
			again = append(append(again, m...), sumOf(m)...)
		}
		if !bytes.Equal(again, b[:good]) {
			t.Fatalf("%x was read as %v", b[:good], list)
		}
	})
}
