package grant

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// Keys made of fixed seeds: Ed25519 signatures are the same every time.
var (
	policyKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	stampKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	otherKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	keys      = Keys{Policy: public(policyKey), Stamp: public(stampKey)}

	now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

func public(list ...ed25519.PrivateKey) (out []ed25519.PublicKey) {
	for _, k := range list {
		out = append(out, k.Public().(ed25519.PublicKey))
	}
	return out
}

func keyHash(b byte) identity.KeyHash { return identity.KeyHash(bytes.Repeat([]byte{b}, 32)) }

func permission() Permission {
	return Permission{
		Version: 0x0102030405060708,
		Forward: "web",
		Entry:   Party{"ann", keyHash(0xaa)},
		Listen:  endpoint.MustParse("tcp://127.0.0.1:80"),
		Exit:    Party{"plc", keyHash(0xbb)},
		Target:  endpoint.MustParse("unix:///s"),
		End:     time.Unix(0x70000000, 0).UTC(),
		Proxy:   2,
		Rank:    3,
		Terms: Terms{
			Direct: DirectOnly, Rate: 10_000_000, Streams: 20, Month: 50_000_000_000,
			Clients: clients("2001:db8::/32", "192.168.7.0/24"),
			Hours:   hours(berlin, Window{sat, 22 * 60, 6 * 60}, Window{monToFri, 8 * 60, 18 * 60}),
		},
	}
}

// always is a permission without terms.
func always() Permission {
	p := permission()
	p.Terms = Terms{}
	return p
}

const (
	berlin   = "CET-1CEST,M3.5.0,M10.5.0/3"
	monToFri = 0b0011111
	sat      = 0b0100000
)

func hours(zone string, windows ...Window) Hours {
	h, err := NewHours(zone, windows)
	if err != nil {
		panic(err)
	}
	return h
}

func clients(prefixes ...string) Clients {
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	c, err := NewClients(list)
	if err != nil {
		panic(err)
	}
	return c
}

const (
	goldenPermission = "0102030405060708" + // version
		"0003 776562" + // forward
		"0003 616e6e" + // entry
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" +
		"0012 7463703a2f2f3132372e302e302e313a3830" + // listen
		"0003 706c63" + // exit
		"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" +
		"0009 756e69783a2f2f2f73" + // target
		"0000000070000000" + // end
		"02" + // proxy
		"03" + // rank
		"01" + // direct
		"0000000000989680" + // rate
		"00000014" + // streams
		"0000000ba43b7400" + // month
		"0002 04c0a80700 18 1020010db8000000000000000000000000 20" + // clients
		"001a 4345542d31434553542c4d332e352e302c4d31302e352e302f33" + // zone
		"0002 1f01e00438 2005280168" // hours

	// The signatures were made by OpenSSL, from the layout in the package's
	// documentation.
	goldenID    = "c21ac771112e47e470ccfb85775b713f"
	goldenGrant = "00d7 " + goldenPermission +
		"ab29b10d17f9443630e53f57c3e8ea26a92c8c3bb6586a93aa60d514f2acd641" +
		"1a3fe3c63f356a1df11b526dee10c47da46ac7fe907301efacfb7f433aa8c206" +
		"000000006b02cb30" + // from: an hour before
		"000000006b042ac0" + // until: a day after
		"92c49054a22e1c89026746187e40360c91aea042ff6effb86cbeff8c861850c9" +
		"2de89756e765431e714e450e35def8f888990852521892bd192db5685d4d1f04"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// whole makes all fields of a Grant visible to cmp.
var whole = cmp.AllowUnexported(Grant{}, endpoint.Endpoint{}, Clients{}, Hours{})

func TestPermissionIsItsGoldenBytes(t *testing.T) {
	want := unhex(t, goldenPermission)
	if got := permission().AppendTo([]byte("prefix")); !bytes.Equal(got, append([]byte("prefix"), want...)) {
		t.Errorf(" got %x\nwant %x", got[6:], want)
	}
	p, err := ParsePermission(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(permission(), p, whole); diff != "" {
		t.Errorf("parsed (-want +got):\n%s", diff)
	}
}

func TestGrantIsItsGoldenBytes(t *testing.T) {
	g := Sign(permission(), policyKey).Stamp(stampKey, now)
	want := unhex(t, goldenGrant)
	if got := g.AppendTo([]byte("prefix")); !bytes.Equal(got, append([]byte("prefix"), want...)) {
		t.Errorf(" got %x\nwant %x", got[6:], want)
	}
	got, err := Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g, got, whole); diff != "" {
		t.Errorf("parsed (-want +got):\n%s", diff)
	}
	if r := got.Verify(keys); r != wire.ReasonNone {
		t.Errorf("verified: %v", r)
	}
}

func TestGrantIDIsOfThePermission(t *testing.T) {
	id, err := permission().ID().MarshalText()
	if err != nil || string(id) != goldenID {
		t.Errorf("id %s, %v; want %s", id, err, goldenID)
	}
	g := Sign(permission(), policyKey)
	if g.Stamp(stampKey, now).ID() != g.Stamp(otherKey, now.Add(time.Hour)).ID() {
		t.Error("a new stamp makes another id")
	}
}

// TestEveryFieldIsSigned changes one bit at a time of a good grant: none of
// them goes unnoticed.
func TestEveryFieldIsSigned(t *testing.T) {
	good := unhex(t, goldenGrant)
	for i := range good {
		for bit := range 8 {
			b := slices.Clone(good)
			b[i] ^= 1 << bit
			g, err := Parse(b)
			if err == nil && g.Verify(keys) == wire.ReasonNone {
				t.Fatalf("bit %d of byte %d of %d changed, and the grant is still right", bit, i, len(good))
			}
		}
	}
}

func TestCutOrLongGrantsAreRefused(t *testing.T) {
	g, p := unhex(t, goldenGrant), unhex(t, goldenPermission)
	for n := range g {
		if got, err := Parse(g[:n]); !errors.Is(err, wire.ErrMalformed) || cmp.Diff(Grant{}, got, whole) != "" {
			t.Fatalf("%d of %d bytes: %v, %v", n, len(g), got, err)
		}
	}
	for n := range p {
		if got, err := ParsePermission(p[:n]); !errors.Is(err, wire.ErrMalformed) || got != (Permission{}) {
			t.Fatalf("permission of %d of %d bytes: %v, %v", n, len(p), got, err)
		}
	}
	if _, err := Parse(append(slices.Clone(g), 0)); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a byte too much: %v", err)
	}
	if _, err := ParsePermission(append(slices.Clone(p), 0)); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("permission, a byte too much: %v", err)
	}
	long := append([]byte{0, byte(len(p) + 1)}, append(slices.Clone(p), 0)...)
	if _, err := Parse(append(long, g[2+len(p):]...)); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a byte too much inside: %v", err)
	}
}

func TestSenselessPermissionsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Permission){
		"no forward":            func(p *Permission) { p.Forward = "" },
		"forward in upper case": func(p *Permission) { p.Forward = "Web" },
		"forward of 64 bytes":   func(p *Permission) { p.Forward = strings.Repeat("a", 64) },
		"no entry":              func(p *Permission) { p.Entry.Name = "" },
		"entry ../x":            func(p *Permission) { p.Entry.Name = "../x" },
		"exit with NUL":         func(p *Permission) { p.Exit.Name = "a\x00b" },
		"exit *":                func(p *Permission) { p.Exit.Name = "*" },
		"entry without key":     func(p *Permission) { p.Entry.Key = identity.KeyHash{} },
		"exit without key":      func(p *Permission) { p.Exit.Key = identity.KeyHash{} },
		"listener is a name":    func(p *Permission) { p.Listen = endpoint.MustParse("tcp://a.lan:80") },
		"target is stdio":       func(p *Permission) { p.Target = endpoint.MustParse("stdio:") },
		"target is everything":  func(p *Permission) { p.Target = endpoint.MustParse("tcp://0.0.0.0:80") },
		"target is multicast":   func(p *Permission) { p.Target = endpoint.MustParse("tcp://[ff02::1]:80") },
		"a stream to datagrams": func(p *Permission) { p.Target = endpoint.MustParse("udp://10.0.0.1:80") },
		"datagrams to a stream": func(p *Permission) { p.Listen = endpoint.MustParse("udp://127.0.0.1:80") },
		"PROXY protocol 3":      func(p *Permission) { p.Proxy = 3 },
		"PROXY protocol before UDP": func(p *Permission) {
			p.Listen, p.Target = endpoint.MustParse("udp://127.0.0.1:80"), endpoint.MustParse("udp://10.0.0.1:80")
		},
		"direct 3":                  func(p *Permission) { p.Direct = 3 },
		"a rate beyond all":         func(p *Permission) { p.Rate = MaxBytes + 1 },
		"a volume beyond all":       func(p *Permission) { p.Month = MaxBytes + 1 },
		"clients of a Unix socket":  func(p *Permission) { p.Listen = endpoint.MustParse("unix:///l") },
		"clients of standard input": func(p *Permission) { p.Listen = endpoint.MustParse("stdio:") },
		"no listener":               func(p *Permission) { p.Listen = endpoint.Endpoint{} },
		"no target":                 func(p *Permission) { p.Target = endpoint.Endpoint{} },
	} {
		p := permission()
		change(&p)
		if err := p.Check(); err == nil {
			t.Errorf("%s: Check passes", name)
		}
		if _, err := ParsePermission(p.AppendTo(nil)); !errors.Is(err, wire.ErrMalformed) || strings.Contains(err.Error(), "\x00") {
			t.Errorf("%s: parsed: %v", name, err)
		}
	}
	// An endpoint in another writing than its one form.
	other := bytes.Replace(permission().AppendTo(nil), []byte("tcp://127.0.0.1:80"), []byte("tcp://127.0.0.1:8A"), 1)
	if _, err := ParsePermission(other); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("odd endpoint: %v", err)
	}
	for _, proxy := range []Proxy{0, 1, 2} {
		p := permission()
		p.Proxy = proxy
		if err := p.Check(); err != nil {
			t.Errorf("PROXY protocol %d: %v", proxy, err)
		}
	}
}

func TestSignaturesOfOthersAreRefused(t *testing.T) {
	good := Sign(permission(), policyKey).Stamp(stampKey, now)
	// A signature over the right bytes in the other's context.
	swapped := good
	copy(swapped.policySignature[:], ed25519.Sign(policyKey, append([]byte(stampContext), permission().AppendTo(nil)...)))
	bare := good
	copy(bare.policySignature[:], ed25519.Sign(policyKey, permission().AppendTo(nil)))
	crossed := good
	crossed.policySignature, crossed.stampSignature = good.stampSignature, good.policySignature
	other := permission()
	other.Target = endpoint.MustParse("unix:///t")
	transplanted := Sign(other, policyKey).Stamp(stampKey, now)
	transplanted.stampSignature = good.stampSignature
	longer := good
	longer.Until = good.Until.Add(time.Second)

	for _, tt := range []struct {
		name string
		g    Grant
		keys Keys
		want wire.Reason
	}{
		{"good", good, keys, wire.ReasonNone},
		{"one of several keys", good, Keys{public(otherKey, policyKey), public(otherKey, stampKey)}, wire.ReasonNone},
		{"no keys", good, Keys{}, wire.ReasonBadSignature},
		{"no policy key", good, Keys{Stamp: keys.Stamp}, wire.ReasonBadSignature},
		{"no stamp key", good, Keys{Policy: keys.Policy}, wire.ReasonBadSignature},
		{"the keys exchanged", good, Keys{keys.Stamp, keys.Policy}, wire.ReasonBadSignature},
		{"keys of the wrong size", good, Keys{[]ed25519.PublicKey{nil, {1}}, keys.Stamp}, wire.ReasonBadSignature},
		{"signed by another", Sign(permission(), otherKey).Stamp(stampKey, now), keys, wire.ReasonBadSignature},
		{"a server that grants alone", Sign(permission(), stampKey).Stamp(stampKey, now), keys, wire.ReasonBadSignature},
		{"stamped by another", Sign(permission(), policyKey).Stamp(otherKey, now), keys, wire.ReasonBadSignature},
		{"stamped by the policy key", Sign(permission(), policyKey).Stamp(policyKey, now), keys, wire.ReasonBadSignature},
		{"never stamped", Sign(permission(), policyKey), keys, wire.ReasonBadSignature},
		{"never signed", Grant{Permission: permission()}.Stamp(stampKey, now), keys, wire.ReasonBadSignature},
		{"the stamp's context", swapped, keys, wire.ReasonBadSignature},
		{"no context", bare, keys, wire.ReasonBadSignature},
		{"signatures exchanged", crossed, keys, wire.ReasonBadSignature},
		{"the stamp of another permission", transplanted, keys, wire.ReasonBadSignature},
		{"a longer stamp", longer, keys, wire.ReasonBadSignature},
	} {
		if got := tt.g.Verify(tt.keys); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestGrantHoldsWhileItsStampAndItsPermissionDo(t *testing.T) {
	stamped := func(end, from, until time.Time) Grant {
		p := always()
		p.End = end
		return Grant{Permission: p, From: from, Until: until}
	}
	never := time.Time{}
	hour, day := time.Hour, 24*time.Hour
	fresh := Sign(always(), policyKey).Stamp(stampKey, now)
	if want := now.Add(StampLife); !fresh.Ends().Equal(want) {
		t.Errorf("ends %v, want %v", fresh.Ends(), want)
	}
	for _, tt := range []struct {
		name string
		g    Grant
		at   time.Time
		want bool
	}{
		{"just stamped", fresh, now, true},
		{"by a clock an hour behind", fresh, now.Add(-StampSlack), true},
		{"by a clock more than an hour behind", fresh, now.Add(-StampSlack - time.Second), false},
		{"the last moment", fresh, now.Add(StampLife - 1), true},
		{"a day later", fresh, now.Add(StampLife), false},
		{"the permission ends first", stamped(now.Add(hour), now, now.Add(day)), now.Add(hour - 1), true},
		{"the permission has ended", stamped(now.Add(hour), now, now.Add(day)), now.Add(hour), false},
		{"the permission ended long ago", stamped(time.Unix(1, 0), now, now.Add(day)), now, false},
		{"no end, a stamp of 7 days", stamped(never, now, now.Add(7*day)), now, true},
		{"no end, a stamp of 7 days and a second", stamped(never, now, now.Add(7*day+time.Second)), now, false},
		{"a stamp until the year 9999", stamped(never, now, time.Unix(maxTime, 0)), now, false},
		{"a stamp from 1970", stamped(never, time.Unix(1, 0), now.Add(day)), now, false},
		{"no stamp", stamped(never, never, never), now, false},
		{"a stamp without begin", stamped(never, never, now.Add(day)), now, false},
		{"a stamp without end", stamped(never, now, never), now, false},
		{"a stamp that ends before it begins", stamped(never, now.Add(hour), now.Add(-hour)), now, false},
	} {
		got := tt.g.Valid(tt.at)
		if want := map[bool]wire.Reason{true: wire.ReasonNone, false: wire.ReasonGrantExpired}[tt.want]; got != want {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

// TestTimesDoNotOverflowIntoNever puts odd times into the encoded fields.
func TestTimesDoNotOverflowIntoNever(t *testing.T) {
	good := unhex(t, goldenGrant)
	size := 2 + len(unhex(t, goldenPermission))
	for field, at := range map[string]int{"end": 2 + bytes.Index(unhex(t, goldenPermission), unhex(t, "0000000070000000")), "from": size + 64, "until": size + 72} {
		for _, n := range []uint64{maxTime + 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64, math.MaxUint64 - 62135596800 + 1} {
			b := slices.Clone(good)
			binary.BigEndian.PutUint64(b[at:], n)
			if g, err := Parse(b); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%s of %d seconds was read as %v", field, n, g)
			}
		}
	}
	p := permission()
	for _, end := range []time.Time{time.Unix(-5, 0), time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)} {
		p.End = end
		got, err := ParsePermission(p.AppendTo(nil))
		if err != nil || got.End.IsZero() || got.End.Before(time.Unix(1, 0)) || got.End.After(time.Unix(maxTime, 0)) {
			t.Errorf("an end of %v came back as %v, %v", end, got.End, err)
		}
	}
}

func TestSamePair(t *testing.T) {
	p := permission()
	q := p
	q.Version, q.Forward, q.End, q.Rank, q.Terms = 9, "renamed", time.Time{}, 0, Terms{}
	q.Entry.Key, q.Exit.Key = keyHash(1), keyHash(2) // renewed with new keys
	if !p.SamePair(q) {
		t.Error("another name, version, end, rank, other terms and keys make another pair")
	}
	for name, change := range map[string]func(*Permission){
		"entry":    func(p *Permission) { p.Entry.Name = "bo" },
		"listener": func(p *Permission) { p.Listen = endpoint.MustParse("tcp://127.0.0.1:81") },
		"exit":     func(p *Permission) { p.Exit.Name = "plc2" },
		"target":   func(p *Permission) { p.Target = endpoint.MustParse("unix:///t") },
		"proxy":    func(p *Permission) { p.Proxy = 1 },
	} {
		q := permission()
		change(&q)
		if p.SamePair(q) || q.SamePair(p) {
			t.Errorf("another %s is the same pair", name)
		}
	}
}

func TestPartyIsNameAndKeyAndRole(t *testing.T) {
	p := Party{"ann", keyHash(0xaa)}
	peer := func(role identity.Role, name string, key byte) identity.Peer {
		return identity.Peer{ID: identity.ID{Domain: "example.org", Role: role, Name: name}, Key: keyHash(key)}
	}
	for _, tt := range []struct {
		peer identity.Peer
		want bool
	}{
		{peer(identity.Portal, "ann", 0xaa), true},
		{peer(identity.Portal, "ann", 0xab), false}, // a certificate that somebody minted for her name
		{peer(identity.Portal, "bo", 0xaa), false},
		{peer(identity.Relay, "ann", 0xaa), false},
		{peer(identity.Server, "ann", 0xaa), false},
		{identity.Peer{}, false},
	} {
		if got := p.Is(tt.peer); got != tt.want {
			t.Errorf("%v with key %v: %v, want %v", tt.peer.ID, tt.peer.Key, got, tt.want)
		}
	}
}

func TestLargestGrantFitsItsMessage(t *testing.T) {
	p := permission()
	p.Forward, p.Entry.Name, p.Exit.Name = strings.Repeat("f", 63), strings.Repeat("e", 63), strings.Repeat("x", 63)
	p.Listen = endpoint.MustParse("tcp://[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
	p.Target = endpoint.MustParse("tcp://" + strings.Repeat("a.", 126) + "b:65535")
	// A Unix socket has a longer name than any address, and no clients with
	// addresses, which would be longer.
	p.Clients, p.Hours = manyClients(), hours("<"+strings.Repeat("z", 61)+">0", manyWindows()...)
	b := Sign(p, policyKey).Stamp(stampKey, now).AppendTo(nil)
	if _, err := Parse(b); err != nil || len(b) > wire.MaxGrant {
		t.Errorf("%d bytes, %v; want at most %d", len(b), err, wire.MaxGrant)
	}
	if _, err := wire.ParsePutGrant(wire.PutGrant{Grant: b}.AppendTo(nil)); err != nil {
		t.Error(err)
	}
}

func TestKeysInFiles(t *testing.T) {
	k := keys.Policy[0]
	s := FormatKey(k)
	if want := "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="; s != want {
		t.Errorf("written %s, want %s", s, want)
	}
	if got, err := ParseKey(s); err != nil || !got.Equal(k) {
		t.Errorf("read %v, %v", got, err)
	}
	raw := strings.TrimPrefix(s, keyPrefix)
	for _, bad := range []string{
		"", "ed25519:", raw, "Ed25519:" + raw, " " + s, s + " ", s + "\n", s[:len(s)-1], s + "=", s[:20] + "\n" + s[20:],
		"ed25519:" + strings.Replace(raw, "w=", "x=", 1), // stray bits after the key
		"ed25519:" + raw[:40], "ed25519:" + raw[:43] + "AAAA", "ed25519:ed25519:" + raw, "rsa:" + raw,
	} {
		if k, err := ParseKey(bad); err == nil {
			t.Errorf("%q was read as %x", bad, k)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, goldenGrant))
	p := permission()
	p.End, p.Proxy = time.Time{}, 0
	p.Listen, p.Target = endpoint.MustParse("udp://[::1]:1"), endpoint.MustParse("udp://a.b:2")
	f.Add(Sign(p, policyKey).AppendTo(nil))
	p.Terms = Terms{}
	f.Add(Sign(p, policyKey).AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		sent := slices.Clone(b)
		g, err := Parse(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		clear(b)
		if got := g.AppendTo(nil); !bytes.Equal(got, sent) {
			t.Fatalf("\n read %x\nwrote %x", sent, got)
		}
		if err := g.Check(); err != nil {
			t.Fatalf("parsed, but: %v", err)
		}
		g.Verify(keys)
		if next := g.Next(now); !next.IsZero() && !next.After(now) {
			t.Fatalf("the next look at %v is at %v", now, next)
		}
		copy(b, sent)
	})
}
