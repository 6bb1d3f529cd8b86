package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

var (
	testHash  = identity.KeyHash(bytes.Repeat([]byte{0xcc}, 32))
	testToken = TokenID(bytes.Repeat([]byte{0x71}, 16))
)

const (
	hexHash  = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	hexToken = "71717171717171717171717171717171"
)

// identityGoldens are those of control_identity.go and enrol.go.
var identityGoldens = []golden{
	{
		Renew{Request: 7, CSR: []byte{0x30, 0x01}},
		fromPortal | fromRelay,
		"00000007" + // request
			"0002 3001", // csr
	},
	{
		Renewed{Request: 7, Chain: [][]byte{{0x30, 0x01}, {0x30}}},
		toPortal | toRelay,
		"00000007" + // request
			"0002 0002 3001 0001 30", // chain
	},
	{
		RenewRefused{Request: 7, Reason: ReasonRevoked, Text: "no"},
		toPortal | toRelay,
		"00000007" + // request
			"0017" + // reason
			"0002 6e6f", // text
	},
	{
		Authorities{Version: 3, Issuing: testHash, Certificates: [][]byte{{0x30, 0x01}}, Signature: [64]byte(bytes.Repeat([]byte{0xab}, 64))},
		toPortal | toRelay | toJoiner,
		"0000000000000003" + // version
			hexHash + // issuing
			"0001 0002 3001" + // certificates
			strings.Repeat("ab", 64), // signature
	},
	{
		RevocationsHeld{Epoch: 9},
		fromPortal | fromRelay,
		"0000000000000009",
	},
	{
		Revocation{identity.Revocation{Epoch: 10, Role: identity.Relay, Name: "r1", Before: time.Unix(0x6921a2b3, 0).UTC()}},
		toPortal | toRelay,
		"000000000000000a" + // epoch
			"01" + // a name
			"03" + // relay
			"0002 7231" + // name
			"000000006921a2b3", // before
	},
	{
		Revocation{identity.Revocation{Epoch: 11, Key: testHash}},
		toPortal | toRelay,
		"000000000000000b" + // epoch
			"02" + // a key
			hexHash,
	},
	{
		Revocation{identity.Revocation{Epoch: 12, Issuer: testHash, Serial: "\x07\x00"}},
		toPortal | toRelay,
		"000000000000000c" + // epoch
			"03" + // one certificate
			hexHash + // issuer
			"0002 0700", // serial
	},
	{
		RevocationsComplete{Epoch: 12},
		toPortal | toRelay,
		"000000000000000c",
	},
	{
		Enrol{Version: 4, Software: "np/1", Token: testToken, Secret: testSecret0, CSR: []byte{0x30}},
		fromJoiner,
		"0004" + // version
			"0004 6e702f31" + // software
			hexToken +
			hexSecret0 +
			"0001 30", // csr
	},
	{
		EnrolWait{Key: testHash},
		toJoiner,
		hexHash,
	},
	{
		Enrolled{
			Time: 0x6921a2b3, Chain: [][]byte{{0x30, 0x01}}, Policy: []ed25519.PublicKey{testKey},
			Servers: []string{"np:443"}, Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5")},
		},
		toJoiner,
		"000000006921a2b3" + // time
			"0001 0002 3001" + // chain
			"0001 " + hexKey + // policy
			"0001 0006 6e703a343433" + // servers
			"0001 04 cb007105", // addresses
	},
	{
		EnrolRefused{Reason: ReasonToken, Text: "no"},
		toJoiner,
		"001c" + // reason
			"0002 6e6f", // text
	},
}

func TestIdentityFieldsKeepTheirLimits(t *testing.T) {
	blob := func(n int) string { return fmt.Sprintf("%04x", n) + strings.Repeat("30", n) }
	list := func(count int, element string) string {
		return fmt.Sprintf("%04x", count) + strings.Repeat(element, count)
	}
	signature := strings.Repeat("ab", 64)
	bundle := func(certificates string) string { return "0000000000000003" + hexHash + certificates + signature }
	enrolled := func(chain, policy, servers string) string {
		return "0000000000000001" + chain + policy + servers + "0000"
	}
	const server = "0006 6e703a343433"
	for _, tt := range []struct {
		name string
		to   direction
		typ  Type
		body string
		ok   bool
	}{
		{"request of 4096 bytes", fromPortal, TypeRenew, "00000007" + blob(4096), true},
		{"request of 4097 bytes", fromPortal, TypeRenew, "00000007" + blob(4097), false},
		{"empty request", fromPortal, TypeRenew, "00000007 0000", false},
		{"chain of 4", toPortal, TypeRenewed, "00000007" + list(4, blob(1)), true},
		{"chain of 5", toPortal, TypeRenewed, "00000007" + list(5, blob(1)), false},
		{"no chain", toPortal, TypeRenewed, "00000007 0000", false},
		{"an empty certificate", toPortal, TypeRenewed, "00000007 0001 0000", false},
		{"chain of 11,264 bytes", toPortal, TypeRenewed, "00000007" + list(4, blob(2816)), true},
		{"chain of a byte more", toPortal, TypeRenewed, "00000007 0002" + blob(2817) + blob(8448), false},
		{"8 authorities", toRelay, TypeAuthorities, bundle(list(8, blob(1))), true},
		{"9 authorities", toRelay, TypeAuthorities, bundle(list(9, blob(1))), false},
		{"no authority", toRelay, TypeAuthorities, bundle("0000"), false},
		{"authorities of version 0", toRelay, TypeAuthorities, "0000000000000000" + hexHash + list(1, blob(1)) + signature, false},
		{"revocation of epoch 0", toPortal, TypeRevocation, "0000000000000000 02" + hexHash, false},
		{"revocation of kind 0", toPortal, TypeRevocation, "0000000000000001 00" + hexHash, false},
		{"revocation of kind 4", toPortal, TypeRevocation, "0000000000000001 04" + hexHash, false},
		{"revocation of key 0", toPortal, TypeRevocation, "0000000000000001 02" + strings.Repeat("00", 32), false},
		{"revocation of role 0", toPortal, TypeRevocation, "0000000000000001 01 00 0001 61 0000000000000001", false},
		{"revocation of role 5", toPortal, TypeRevocation, "0000000000000001 01 05 0001 61 0000000000000001", false},
		{"revocation of what is no name", toPortal, TypeRevocation, "0000000000000001 01 01 0001 2a 0000000000000001", false},
		{"revocation from the first second", toPortal, TypeRevocation, "0000000000000001 01 01 0001 61 0000000000000001", true},
		{"revocation from second 0", toPortal, TypeRevocation, "0000000000000001 01 01 0001 61 0000000000000000", false},
		{"revocation from the year 9999", toPortal, TypeRevocation, "0000000000000001 01 01 0001 61 0000003afff4417f", true},
		{"revocation from the year 10000", toPortal, TypeRevocation, "0000000000000001 01 01 0001 61 0000003afff44180", false},
		{"revocation from the end of numbers", toPortal, TypeRevocation, "0000000000000001 01 01 0001 61 ffffffffffffffff", false},
		{"revocation of a serial number of 40 bytes", toPortal, TypeRevocation, "0000000000000001 03" + hexHash + blob(40), true},
		{"revocation of a serial number of 41 bytes", toPortal, TypeRevocation, "0000000000000001 03" + hexHash + blob(41), false},
		{"revocation of no serial number", toPortal, TypeRevocation, "0000000000000001 03" + hexHash + "0000", false},
		{"revocation of a serial number with a zero before it", toPortal, TypeRevocation, "0000000000000001 03" + hexHash + "0002 0007", false},
		{"revocation of no issuer's serial number", toPortal, TypeRevocation, "0000000000000001 03" + strings.Repeat("00", 32) + "0001 07", false},
		{"enrolment without a token", fromJoiner, TypeEnrol, "0004 0000" + strings.Repeat("00", 48) + blob(1), true},
		{"enrolment with a token and no secret", fromJoiner, TypeEnrol, "0004 0000" + hexToken + strings.Repeat("00", 32) + blob(1), false},
		{"enrolment with a secret and no token", fromJoiner, TypeEnrol, "0004 0000" + strings.Repeat("00", 16) + hexSecret0 + blob(1), false},
		{"a time in the year 10000", toJoiner, TypeEnrolled, "0000003afff44180" + list(1, blob(1)) + list(1, hexKey) + list(1, server) + "0000", false},
		{"welcome in the year 9999", toPortal, TypeWelcome, "0004 0000003afff4417f 0000 00", true},
		{"welcome in the year 10000", toPortal, TypeWelcome, "0004 0000003afff44180 0000 00", false},
		{"4 policy keys", toJoiner, TypeEnrolled, enrolled(list(1, blob(1)), list(4, hexKey), list(1, server)), true},
		{"5 policy keys", toJoiner, TypeEnrolled, enrolled(list(1, blob(1)), list(5, hexKey), list(1, server)), false},
		{"no policy key", toJoiner, TypeEnrolled, enrolled(list(1, blob(1)), "0000", list(1, server)), false},
		{"no server", toJoiner, TypeEnrolled, enrolled(list(1, blob(1)), list(1, hexKey), "0000"), false},
		{"17 servers", toJoiner, TypeEnrolled, enrolled(list(1, blob(1)), list(1, hexKey), list(17, server)), false},
	} {
		m, err := receive(tt.to, tt.typ, unhexBody(t, tt.body))
		if (err == nil) != tt.ok || !tt.ok && (m != nil || !errors.Is(err, ErrMalformed)) {
			t.Errorf("%s: got %v, %v; accepted should be %v", tt.name, m, err, tt.ok)
		}
	}
}

// largestIdentityMessages are messages whose every list and text is as long as it
// may be.
func largestIdentityMessages() []Message {
	quarter := make([]byte, maxCertificates/4)
	chain := [][]byte{quarter, quarter, quarter, quarter}
	enrolled := Enrolled{Chain: chain}
	for range maxPolicyKeys {
		enrolled.Policy = append(enrolled.Policy, testKey)
	}
	for range MaxServers {
		enrolled.Servers = append(enrolled.Servers, strings.Repeat("s", maxServer))
	}
	for range MaxAddresses {
		enrolled.Addresses = append(enrolled.Addresses, netip.MustParseAddr("2001:db8::5"))
	}
	eighth := quarter[:maxCertificates/8]
	return []Message{
		enrolled, Renewed{Chain: chain},
		Authorities{Certificates: [][]byte{eighth, eighth, eighth, eighth, eighth, eighth, eighth, eighth}},
		Enrol{Software: strings.Repeat("x", maxSoftware), CSR: make([]byte, identity.MaxRequest)},
	}
}

func TestVersionIsSignedByOneKeyForOneUse(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := GrantsComplete{Version: 7}.Sign(private)
	if !good.SignedBy(public) || good.SignedBy(testKey) || good.SignedBy(nil) {
		t.Fatal("a signature is not judged by its key alone")
	}
	higher := good
	higher.Version++
	authorities := Authorities{Version: 7}.Sign(private)
	for name, m := range map[string]GrantsComplete{
		"another version": higher, "unsigned": {Version: 7}, "the signature of other authorities": {Version: 7, Signature: authorities.Signature},
	} {
		if m.SignedBy(public) {
			t.Errorf("%s passes", name)
		}
	}
}

func TestAuthoritiesAreSignedWhole(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := Authorities{Version: 3, Issuing: testHash, Certificates: [][]byte{{1, 2}, {3}}}.Sign(private)
	if !good.SignedBy(testKey, public) || good.SignedBy(testKey) || good.SignedBy() || good.SignedBy(public[:31]) {
		t.Fatal("a signature is not judged by its key alone")
	}
	for name, change := range map[string]func(*Authorities){
		"a version":                 func(m *Authorities) { m.Version++ },
		"the issuing authority":     func(m *Authorities) { m.Issuing[0]++ },
		"a certificate more":        func(m *Authorities) { m.Certificates = append(m.Certificates, []byte{4}) },
		"a certificate less":        func(m *Authorities) { m.Certificates = m.Certificates[:1] },
		"a byte from one to other":  func(m *Authorities) { m.Certificates = [][]byte{{1}, {2, 3}} },
		"the order of certificates": func(m *Authorities) { m.Certificates = [][]byte{{3}, {1, 2}} },
		"the signature":             func(m *Authorities) { m.Signature[63]++ },
	} {
		m := good
		change(&m)
		if m.SignedBy(public) {
			t.Errorf("%s was changed and nobody saw it", name)
		}
	}
}
