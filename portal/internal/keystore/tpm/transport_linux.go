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
	headerLen = 10 // of a response: tag, size, code
	maxLen    = 4096
	// firstPause is before a command is repeated; the next ones double.
	firstPause = 5 * time.Millisecond
)

// patient repeats a command for a TPM that says that it could not begin yet.
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
		if len(b) < headerLen {
			return nil, fmt.Errorf("its answer has %d bytes", len(b))
		}
		if tpm2.TPMRC(binary.BigEndian.Uint32(b[6:])) != tpm2.TPMRCRetry || time.Now().Add(pause).After(p.end) {
			return b, nil
		}
		<-time.After(pause)
	}
}

// device is a TPM behind a device file.
type device struct{ *os.File }

// Send sends a command and reads the response, which comes whole or not at all.
func (d device) Send(command []byte) ([]byte, error) {
	if _, err := d.Write(command); err != nil {
		return nil, lost(err)
	}
	b := make([]byte, maxLen)
	n, err := d.Read(b)
	if err != nil {
		return nil, lost(err)
	}
	return b[:n], nil
}

// socket is a TPM behind a Unix socket that takes raw commands, as swtpm's.
type socket struct{ net.Conn }

// Send sends a command and reads the response.
func (s socket) Send(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, lost(err)
	}
	b := make([]byte, headerLen, maxLen)
	if _, err := io.ReadFull(s, b); err != nil {
		return nil, lost(err)
	}
	n := binary.BigEndian.Uint32(b[2:])
	if n < headerLen || n > maxLen {
		return nil, fmt.Errorf("its answer says that it is %d bytes long", n)
	}
	b = b[:n]
	if _, err := io.ReadFull(s, b[headerLen:]); err != nil {
		return nil, lost(err)
	}
	return b, nil
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
