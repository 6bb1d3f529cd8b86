package record_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/record"
	"github.com/netport/netport/proto/record/recordtest"
)

// pieces is a connection whose bytes come one by one.
type pieces struct {
	net.Conn
	r io.Reader
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b) }

// connect returns a client of crypto/tls, whose key log goes to keys, and a
// server that has the limit.
func connect(t *testing.T, oneByOne bool, keys io.Writer) (*tls.Conn, *record.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	authority := identitytest.New(t)
	any := func(identity.Peer) error { return nil }
	config := authority.Credentials(identity.Portal, "a").ClientTLS(identity.ProtocolControl, any)
	config.KeyLogWriter = keys
	client := tls.Client(a, config)
	if oneByOne {
		b = pieces{b, iotest.OneByteReader(b)}
	}
	server := record.Server(b, authority.Credentials(identity.Server, "b").ServerTLS(identity.ProtocolControl, any))
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	if server.NetConn() != b {
		t.Errorf("NetConn is %T", server.NetConn())
	}
	return client, server
}

func TestDataComesThroughHoweverItIsCut(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		for _, size := range []int{1, 5, 6, 511, 512, 513, 20_000} {
			if oneByOne && size > 1000 {
				continue // as 513, and takes long
			}
			client, server := connect(t, oneByOne, nil)
			sent := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
			go func() {
				for range record.MaxEmpty + 1 { // more records than may be empty
					client.Write(sent)
				}
				client.Close()
			}()
			got, err := io.ReadAll(server)
			if want := bytes.Repeat(sent, record.MaxEmpty+1); err != nil || !bytes.Equal(got, want) {
				t.Errorf("records of %d bytes, one by one = %t: read %d bytes, %v; want %d", size, oneByOne, len(got), err, len(want))
			}
		}
	}
}

// T19: crypto/tls alone bears any number of these, if a byte comes between.
func TestPeerThatSendsTooManyRecordsWithoutDataIsLeft(t *testing.T) {
	for name, appendEmpty := range map[string]func(*recordtest.Sealer, []byte) []byte{
		"KeyUpdate":  (*recordtest.Sealer).AppendKeyUpdate,
		"empty data": func(s *recordtest.Sealer, b []byte) []byte { return s.AppendData(b) },
	} {
		t.Run(name, func(t *testing.T) {
			var keys bytes.Buffer
			client, server := connect(t, false, &keys)
			s := recordtest.NewSealer(t, client, keys.Bytes(), 0)
			go io.Copy(io.Discard, client.NetConn()) // the answers
			go func() {
				for range 2 * record.MaxEmpty {
					if _, err := client.NetConn().Write(s.AppendData(appendEmpty(s, nil), 'x')); err != nil {
						return
					}
				}
			}()
			got := 0
			for {
				n, err := server.Read(make([]byte, 10))
				got += n
				if err != nil {
					if !errors.Is(err, record.ErrEmpty) {
						t.Error(err)
					}
					break
				}
			}
			if got != record.MaxEmpty {
				t.Errorf("read %d bytes with a record before each, want %d", got, record.MaxEmpty)
			}
		})
	}
}

func TestAwaitIsOverWhenThereIsSomethingToRead(t *testing.T) {
	client, server := connect(t, false, nil)
	awaited := make(chan error)
	await := func() { awaited <- server.Await() }
	go await()
	go client.Write(make([]byte, 100)) // one record
	if err := <-awaited; err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{60, 40} { // the rest is with crypto/tls: no byte comes any more
		go await()
		if err := <-awaited; err != nil {
			t.Fatal(err)
		}
		if n, err := server.Read(make([]byte, 60)); n != want || err != nil {
			t.Fatalf("read %d bytes, %v; want %d", n, err, want)
		}
	}
	go await()
	go client.NetConn().Close()
	if err := <-awaited; err != io.EOF {
		t.Errorf("at the end: %v, want %v", err, io.EOF)
	}
}
