package carrier

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// cutUp returns the parts of a datagram.
func cutUp(number uint32, body []byte, size int) (parts []wire.Fragment) {
	for at := 0; at < len(body); at += size {
		parts = append(parts, wire.Fragment{
			Stream: 1, Part: true, Number: number, Length: len(body), Offset: at, Data: body[at:min(at+size, len(body))],
		})
	}
	return parts
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + i>>8)
	}
	return b
}

func TestDatagramIsPutTogetherInAnyOrder(t *testing.T) {
	now := time.Unix(1e9, 0)
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r reassembly
		body := pattern(wire.MinPart + 2 + rnd.IntN(wire.MaxDatagram-wire.MinPart-2))
		parts := cutUp(7, body, wire.MinPart+rnd.IntN(400))
		parts = append(parts, parts[rnd.IntN(len(parts))]) // and one twice
		rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		var got [][]byte
		for _, p := range parts {
			if b, whole := r.add(p, now); whole {
				got = append(got, b)
			}
		}
		if len(got) != 1 || !bytes.Equal(got[0], body) {
			t.Fatalf("seed %d: %d datagrams came of %d parts", seed, len(got), len(parts))
		}
	}
}

func TestIncompleteDatagramsAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	var r reassembly
	add := func(number uint32, length int) {
		if _, whole := r.add(cutUp(number, pattern(length), wire.MinPart)[0], now); whole {
			t.Fatal("a datagram came of one part")
		}
	}
	for i := range uint32(1000) {
		add(i, wire.MaxDatagram)
		if r.bytes > maxPartialBytes || r.bytes != len(r.partial)*wire.MaxDatagram {
			t.Fatalf("%d bytes are kept for %d datagrams", r.bytes, len(r.partial))
		}
	}
	for i := range uint32(1000) {
		add(5000+i, 1500)
	}
	if len(r.partial) != maxPartial {
		t.Errorf("%d datagrams wait for their parts", len(r.partial))
	}
	// What waits too long is given up, and its late part begins anew.
	parts := cutUp(9000, pattern(2000), wire.MinPart)
	r.add(parts[0], now)
	if _, whole := r.add(parts[1], now.Add(partialTime+1)); whole {
		t.Error("a datagram was put together after its time")
	}
	if len(r.partial) != 1 {
		t.Errorf("%d datagrams wait after their time", len(r.partial))
	}
}

// A number that comes again with another length or flow is another datagram.
func TestPartsOfDifferentDatagramsAreNotMixed(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, other := range []func(*wire.Fragment){
		func(f *wire.Fragment) { f.Stream = 3 },
		func(f *wire.Fragment) { f.Length++ },
	} {
		var r reassembly
		parts := cutUp(1, pattern(2000), wire.MinPart)
		r.add(parts[0], now)
		other(&parts[1])
		if _, whole := r.add(parts[1], now); whole {
			t.Error("a datagram came of parts of two")
		}
	}
	// Parts that overlap are no datagram either.
	var r reassembly
	f := cutUp(1, pattern(3000), 1500)
	r.add(f[0], now)
	f[1].Offset, f[1].Data = 1000, pattern(2000)
	if _, whole := r.add(f[1], now); whole {
		t.Error("a datagram came of parts that overlap")
	}
}
