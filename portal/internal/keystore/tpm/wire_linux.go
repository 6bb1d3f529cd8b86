package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The commands of a TPM that are used here, as the TCG's TPM 2.0 Library writes them
// (part 3, Commands). Numbers are big-endian; a sized buffer has its length before it,
// in two bytes.
const (
	codeCreatePrimary = 0x131
	codeCreate        = 0x153
	codeLoad          = 0x157
	codeSign          = 0x15d
	codeFlushContext  = 0x165
)

// What commands are made of (part 2, Structures).
const (
	tagNoSessions = 0x8001
	tagSessions   = 0x8002
	tagHashCheck  = 0x8024 // of the proof that the TPM has hashed itself, which is none here

	algorithmAES    = 0x0006
	algorithmSHA256 = 0x000b
	algorithmNull   = 0x0010
	algorithmECDSA  = 0x0018
	algorithmECC    = 0x0023
	modeCFB         = 0x0043
	curveP256       = 0x0003

	hierarchyOwner  = 0x40000001
	hierarchyNull   = 0x40000007
	sessionPassword = 0x40000009
)

// The attributes of keys (part 2, 8.3).
const (
	fixedTPM            = 1 << 1  // it stays in its TPM
	fixedParent         = 1 << 4  // and under its parent
	sensitiveDataOrigin = 1 << 5  // the TPM has drawn it
	userWithAuth        = 1 << 6  // its password lets it be used
	noDA                = 1 << 10 // wrong passwords for other keys do not lock it
	restricted          = 1 << 16 // it works on what the TPM has made only
	decrypt             = 1 << 17
	signs               = 1 << 18
)

// command is a command as far as it is written. It has one handle at most.
type command struct{ b []byte }

func (c *command) uint16(v uint16) { c.b = binary.BigEndian.AppendUint16(c.b, v) }
func (c *command) uint32(v uint32) { c.b = binary.BigEndian.AppendUint32(c.b, v) }

// sized appends a sized buffer.
func (c *command) sized(b []byte) {
	c.uint16(uint16(len(b)))
	c.b = append(c.b, b...)
}

// authorized begins a command that uses what has a handle, with the empty password.
func authorized(code, handle uint32) *command {
	c := &command{}
	c.uint16(tagSessions)
	c.uint32(0) // size
	c.uint32(code)
	c.uint32(handle)
	c.uint32(4 + 2 + 1 + 2)
	c.uint32(sessionPassword)
	c.b = append(c.b, 0, 0, 0, 0, 0) // no nonce, no attributes, empty password
	return c
}

// bytes returns the whole command.
func (c *command) bytes() []byte {
	binary.BigEndian.PutUint32(c.b[2:], uint32(len(c.b)))
	return c.b
}

// create is TPM2_CreatePrimary or TPM2_Create: a key of a template, under a handle,
// without a password, data of the caller's, or PCRs.
func create(code, handle uint32, template []byte) []byte {
	c := authorized(code, handle)
	c.sized(make([]byte, 4)) // an empty password, and no data to seal
	c.sized(template)
	c.sized(nil)
	c.uint32(0)
	return c.bytes()
}

func load(parent uint32, f keyFile) []byte {
	c := authorized(codeLoad, parent)
	c.b = append(append(c.b, f.Private...), f.Public...)
	return c.bytes()
}

func signature(key uint32, digest []byte) []byte {
	c := authorized(codeSign, key)
	c.sized(digest)
	c.uint16(algorithmECDSA)
	c.uint16(algorithmSHA256)
	c.uint16(tagHashCheck)
	c.uint32(hierarchyNull)
	c.sized(nil)
	return c.bytes()
}

func flush(handle uint32) []byte {
	c := &command{}
	c.uint16(tagNoSessions)
	c.uint32(0)
	c.uint32(codeFlushContext)
	c.uint32(handle)
	return c.bytes()
}

// template returns the public area of a P-256 key that is to be: with an AES key beside
// if it wraps others.
func template(attributes uint32, wraps bool) []byte {
	c := &command{}
	c.uint16(algorithmECC)
	c.uint16(algorithmSHA256) // of its name
	c.uint32(attributes)
	c.sized(nil) // policy
	if wraps {
		c.uint16(algorithmAES)
		c.uint16(128)
		c.uint16(modeCFB)
	} else {
		c.uint16(algorithmNull)
	}
	c.uint16(algorithmNull) // signature scheme: each time
	c.uint16(curveP256)
	c.uint16(algorithmNull) // key derivation
	c.sized(nil)            // the point
	c.sized(nil)
	return c.b
}

// reader consumes a response front to back. A short read is sticky.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, min(n, 4))
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.bytes(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.bytes(4)) }

// sized returns a sized buffer without its length.
func (r *reader) sized() []byte {
	n := int(r.uint16())
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	return r.bytes(n)
}

// whole returns a sized buffer with its length.
func (r *reader) whole() []byte {
	b := r.b
	n := len(r.sized())
	if r.bad {
		return nil
	}
	return b[:2+n]
}

var errAnswer = errors.New("its answer makes no sense")

// headerLen is that of a response: tag, size, code.
const headerLen = 10

// answer checks the header of a response and returns what follows.
func answer(b []byte) (*reader, error) {
	r := &reader{b: b}
	r.uint16()
	size := r.uint32()
	rc := code(r.uint32())
	switch {
	case r.bad || int64(size) != int64(len(b)):
		return nil, errAnswer
	case rc != 0:
		return nil, rc
	}
	return r, nil
}

// code is the code of a response other than success (part 2, 6.6).
type code uint32

// The codes that somebody can do something about.
const (
	codeInitialize   code = 0x100
	codeObjectMemory code = 0x902
	codeLockout      code = 0x921
	codeRetry        code = 0x922
	codeHandle       code = 0x08b
	codeAuthFail     code = 0x08e
	codeIntegrity    code = 0x09f
	codeBadAuth      code = 0x0a2
)

// bare returns the code without which handle, session or parameter it is about.
func (c code) bare() code {
	if c&0x80 != 0 {
		return c & 0xbf
	}
	return c
}

func (c code) Error() string { return fmt.Sprintf("TPM error %#x", uint32(c)) }
