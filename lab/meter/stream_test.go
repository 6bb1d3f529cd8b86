package meter

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	testBlock = 1000
	testBytes = 10 * testBlock
)

// blocks is a stream of ten blocks and its end block, each as it was written.
func blocks(t *testing.T) [][]byte {
	t.Helper()
	var w splitWriter
	sent, err := Stream{Bytes: testBytes, Block: testBlock, Seed: 1}.Send(t.Context(), &w)
	if sent != testBytes || err != nil {
		t.Fatalf("sent %d bytes, %v", sent, err)
	}
	return w.writes
}

type splitWriter struct{ writes [][]byte }

func (w *splitWriter) Write(b []byte) (int, error) {
	w.writes = append(w.writes, bytes.Clone(b))
	return len(b), nil
}

func TestReceiveReportsWhatIsWrongWithAStream(t *testing.T) {
	const wire = blockHeader + testBlock + blockTrailer
	for _, tt := range []struct {
		name   string
		breaks func(b [][]byte) [][]byte
		want   StreamReport
	}{
		{
			"nothing",
			func(b [][]byte) [][]byte { return b },
			StreamReport{Total: testBytes, Received: testBytes, SumEqual: true},
		}, {
			"a block is lost",
			func(b [][]byte) [][]byte { return append(b[:3:3], b[4:]...) },
			StreamReport{Total: testBytes, Received: testBytes - testBlock, Lost: testBlock},
		}, {
			"the last block is lost",
			func(b [][]byte) [][]byte { return append(b[:9:9], b[10]) },
			StreamReport{Total: testBytes, Received: testBytes - testBlock, Lost: testBlock},
		}, {
			"a block comes twice",
			func(b [][]byte) [][]byte { return append(b[:4:4], b[3:]...) },
			StreamReport{Total: testBytes, Received: testBytes, Duplicated: testBlock},
		}, {
			"a block comes again behind the end",
			func(b [][]byte) [][]byte { return append(b, b[9]) },
			StreamReport{Total: testBytes, Received: testBytes, Duplicated: testBlock, SumEqual: true},
		}, {
			"two blocks change places",
			func(b [][]byte) [][]byte { b[3], b[4] = b[4], b[3]; return b },
			StreamReport{Total: testBytes, Received: testBytes, Reordered: testBlock},
		}, {
			"a bit of a payload flips",
			func(b [][]byte) [][]byte { b[3][500] ^= 4; return b },
			StreamReport{Total: testBytes, Received: testBytes - testBlock, Lost: testBlock, Corrupted: wire},
		}, {
			"a bit of a length flips",
			func(b [][]byte) [][]byte { b[3][13] ^= 8; return b },
			StreamReport{Total: testBytes, Received: testBytes - testBlock, Lost: testBlock, Corrupted: wire},
		}, {
			"one byte is lost",
			func(b [][]byte) [][]byte { b[3] = append(b[3][:500:500], b[3][501:]...); return b },
			StreamReport{Total: testBytes, Received: testBytes - testBlock, Lost: testBlock, Corrupted: wire - 1},
		}, {
			"one byte comes twice",
			func(b [][]byte) [][]byte { b[3] = append(b[3][:500:500], b[3][499:]...); return b },
			StreamReport{Total: testBytes, Received: testBytes - testBlock, Lost: testBlock, Corrupted: wire + 1},
		}, {
			"the end is lost",
			func(b [][]byte) [][]byte { return b[:10] },
			StreamReport{Total: -1, Received: testBytes},
		}, {
			"it is cut inside a block",
			func(b [][]byte) [][]byte { return append(b[:5:5], b[5][:100]) },
			StreamReport{Total: -1, Received: 5 * testBlock, Corrupted: 100},
		}, {
			"nothing arrives",
			func(b [][]byte) [][]byte { return nil },
			StreamReport{Total: -1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := bytes.Join(tt.breaks(blocks(t)), nil)
			for _, pieces := range []int{1, 7, len(stream)} { // bytes per read
				got := Receive(&pieceReader{stream, max(1, pieces)})
				if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(StreamReport{}, "LongestStall", "Elapsed")); diff != "" {
					t.Errorf("in reads of %d (-want +got):\n%s", pieces, diff)
				}
				if wantErr := tt.name != "nothing"; (got.Check() != nil) != wantErr {
					t.Errorf("Check() = %v", got.Check())
				}
			}
		})
	}
}

type pieceReader struct {
	b []byte
	n int
}

func (r *pieceReader) Read(b []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), r.n)], r.b)
	r.b = r.b[n:]
	return n, nil
}

// stallingConn waits before one of its writes.
type stallingConn struct {
	net.Conn
	writes int
	before int
	stall  time.Duration
}

func (c *stallingConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == c.before {
		<-time.After(c.stall)
	}
	return c.Conn.Write(b)
}

func TestLongestStallIsMeasuredInItsDirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		stalling := &stallingConn{Conn: a, before: 6, stall: 3 * time.Second}
		s := Stream{Bytes: testBytes, Block: testBlock, Rate: 8 * testBytes} // one second
		atB, atA := s.Exchange(t.Context(), stalling, b)
		if err := errors.Join(atB.Check(), atA.Check()); err != nil {
			t.Error(err)
		}
		if got, want := atB.LongestStall, 3*time.Second; got < want || got > want+200*time.Millisecond {
			t.Errorf("stall towards b = %v, want %v", got, want)
		}
		if got, want := atA.LongestStall, 200*time.Millisecond; got > want {
			t.Errorf("stall towards a = %v, want at most %v", got, want)
		}
		if got, want := atA.Elapsed, time.Second; got < want*9/10 || got > want*11/10 {
			t.Errorf("paced stream took %v, want %v", got, want)
		}
	})
}

func TestStallThatNeverEndsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		sent := make(chan error)
		go func() {
			_, err := Stream{Bytes: testBytes, Block: testBlock}.Send(t.Context(), &stallingConn{Conn: a, before: 6, stall: time.Minute})
			sent <- err
		}()
		b.SetDeadline(time.Now().Add(10 * time.Second))
		got := Receive(b)
		b.Close()
		if got.LongestStall != 10*time.Second || got.Total != -1 || got.Err == nil {
			t.Errorf("got %v, want a stall of 10s, no end and an error", got)
		}
		if err := <-sent; err == nil {
			t.Error("sending into a closed connection worked")
		}
	})
}

func TestBothWaysOverTCPWithHalfClose(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const size = 5<<20 + 1
	atB, atA := Stream{Bytes: size}.Exchange(t.Context(), a, b)
	for _, report := range []StreamReport{atB, atA} {
		if err := report.Check(); err != nil || report.Received != size {
			t.Errorf("got %v, want %d bytes", report, size)
		}
	}
}
