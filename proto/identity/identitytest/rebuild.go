package identitytest

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
)

// Signed is an X.509 certificate, to be put together anew (RFC 5280 section 4.1).
type Signed struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// Rebuilt is a certificate that was taken apart and changed.
func Rebuilt(t testing.TB, cert tls.Certificate, change func(*Signed)) tls.Certificate {
	t.Helper()
	var c Signed
	if _, err := asn1.Unmarshal(cert.Certificate[0], &c); err != nil {
		t.Fatal(err)
	}
	change(&c)
	der, err := asn1.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, cert.Certificate[1:]...), PrivateKey: cert.PrivateKey}
}

// Malleated is a certificate with the other signature on P-256 that is as good as its own:
// of r and s, N-s for s.
func Malleated(t testing.TB, cert tls.Certificate) tls.Certificate {
	t.Helper()
	return Rebuilt(t, cert, func(c *Signed) {
		var pair struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(c.Signature.Bytes, &pair); err != nil {
			t.Fatal(err)
		}
		pair.S.Sub(elliptic.P256().Params().N, pair.S)
		signature, err := asn1.Marshal(pair)
		if err != nil {
			t.Fatal(err)
		}
		c.Signature.Bytes, c.Signature.BitLength = signature, 8*len(signature)
	})
}
