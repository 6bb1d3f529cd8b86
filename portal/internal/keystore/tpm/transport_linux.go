package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

const (
	headerLen = 10   // of a message: tag, size, code
	maxLen    = 4096 // of a response
	// firstPause is before a command is repeated; the next ones double.
	firstPause = 5 * time.Millisecond
)

// patient repeats a command for a TPM that says that it could not begin yet. Package
// tpm2 has transports too, which wait for an answer without bound.
type patient struct {
	transport.TPMCloser
	conn net.Conn // the same, if it is a socket
	end  time.Time
}

// until bounds what follows. Of a device file, the kernel bounds each command.
func (p *patient) until(end time.Time) {
	p.end = end
	if p.conn != nil {
		p.conn.SetDeadline(end)
	}
}

// Send sends a command until it is taken.
func (p *patient) Send(command []byte) ([]byte, error) {
	for pause := firstPause; ; pause *= 2 {
		b, err := p.TPMCloser.Send(command)
		if err != nil {
			return nil, err
		}
		if tpm2.TPMRC(binary.BigEndian.Uint32(b[6:])) != tpm2.TPMRCRetry || time.Now().Add(pause).After(p.end) {
			return b, nil
		}
		<-time.After(pause)
	}
}

// raw is a TPM that takes commands as they are: a device file, or a socket as swtpm's.
type raw struct{ io.ReadWriteCloser }

// Send sends a command and reads the response.
func (t raw) Send(command []byte) ([]byte, error) {
	if _, err := t.Write(command); err != nil {
		return nil, lost(err)
	}
	b, err := message(t)
	if err != nil {
		return nil, lost(err)
	}
	return b, nil
}

// message reads one message. A device file wants to be read at once, whatever the length.
func message(from io.Reader) ([]byte, error) {
	b, n := make([]byte, maxLen), 0
	for want := headerLen; n < want; {
		m, err := from.Read(b[n:])
		if n += m; n >= headerLen {
			size := binary.BigEndian.Uint32(b[2:])
			if size < headerLen || size > maxLen {
				return nil, fmt.Errorf("its answer says that it is %d bytes long", size)
			}
			want = int(size)
		}
		if err != nil && n < want {
			return nil, err
		}
	}
	if size := binary.BigEndian.Uint32(b[2:]); int(size) != n {
		return nil, fmt.Errorf("its answer is %d bytes long and says %d", n, size)
	}
	return b[:n], nil // headerLen at least
}

func lost(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it has closed the connection instead of an answer")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it does not answer in time")
	}
	return bare(err)
}
