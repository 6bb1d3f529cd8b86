package tpm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

const (
	headerLen = 10 // of a response: tag, size, code
	maxLen    = 4096
)

// device is a TPM behind a device file. The kernel bounds each command's time.
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
	n := int(b[2])<<24 | int(b[3])<<16 | int(b[4])<<8 | int(b[5])
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
