// Package recordtest writes TLS 1.3 records that crypto/tls would never write.
package recordtest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// Sealer seals records of a TLS 1.3 connection by itself, from where crypto/tls
// has left off, since that sends no KeyUpdate for whoever asks. Its keys come
// from the connection's key log (RFC 9850).
type Sealer struct {
	t      testing.TB
	secret []byte // RFC 8446 section 7.2: application_traffic_secret_N
	aead   cipher.AEAD
	iv     []byte
	number uint64 // of the next record under this secret
}

// NewSealer takes over from conn, a client which has written so many records
// since its handshake. log is the connection's key log.
func NewSealer(t testing.TB, conn *tls.Conn, log []byte, written uint64) *Sealer {
	t.Helper()
	if suite := conn.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("the connection has %s, which the test cannot write", tls.CipherSuiteName(suite))
	}
	for line := range bytes.Lines(log) {
		fields := bytes.Fields(line) // label, client random, secret
		if len(fields) != 3 || string(fields[0]) != "CLIENT_TRAFFIC_SECRET_0" {
			continue
		}
		secret, err := hex.DecodeString(string(fields[2]))
		if err != nil {
			t.Fatal(err)
		}
		s := &Sealer{t: t}
		s.use(secret)
		s.number = written
		return s
	}
	t.Fatalf("no secret of the client in the key log:\n%s", log)
	return nil
}

// use makes secret the current one.
func (s *Sealer) use(secret []byte) {
	const keyLen, ivLen = 16, 12
	block, err := aes.NewCipher(s.expand(secret, "key", keyLen))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		s.t.Fatal(err)
	}
	s.secret, s.iv, s.number = secret, s.expand(secret, "iv", ivLen), 0
}

// expand is HKDF-Expand-Label without context (RFC 8446 section 7.1).
func (s *Sealer) expand(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{0, byte(n), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// appendRecord appends a record with the content (RFC 8446 section 5.2).
func (s *Sealer) appendRecord(b []byte, kind byte, content ...byte) []byte {
	inner := append(content, kind)
	header := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(header[3:], uint16(len(inner)+s.aead.Overhead()))
	nonce := bytes.Clone(s.iv)
	for i, n := 0, binary.BigEndian.AppendUint64(nil, s.number); i < len(n); i++ {
		nonce[len(nonce)-len(n)+i] ^= n[i]
	}
	s.number++
	return s.aead.Seal(append(b, header...), nonce, inner, header)
}

// AppendData appends a record of application data, which may be empty.
func (s *Sealer) AppendData(b []byte, data ...byte) []byte { return s.appendRecord(b, 23, data...) }

// AppendKeyUpdate appends a KeyUpdate that asks the peer for one, and goes on
// with the next keys (RFC 8446 section 4.6.3).
func (s *Sealer) AppendKeyUpdate(b []byte) []byte {
	const handshake, keyUpdate, updateRequested = 22, 24, 1
	b = s.appendRecord(b, handshake, keyUpdate, 0, 0, 1, updateRequested)
	s.use(s.expand(s.secret, "traffic upd", sha256.Size))
	return b
}
