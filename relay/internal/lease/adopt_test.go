package lease

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

func bindAt(source netip.AddrPort, port uint16) bpf.Leg {
	return bpf.Leg{Remote: source, Port: port, Local: here}
}

// restart returns the table of the next process, which adopts what m holds.
func restart(m *memory, tune func(*Limits)) (*Table, []Adopted, error) {
	l := packetLimits(m)
	if tune != nil {
		tune(&l)
	}
	table := NewTable(l)
	adopted, err := table.Adopt(start.Add(time.Hour), maps.All(maps.Clone(m.records)))
	return table, adopted, err
}

func mustRestart(t *testing.T, m *memory) (*Table, []Adopted) {
	t.Helper()
	table, adopted, err := restart(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table, adopted
}

var compareAdopted = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})}

func TestSessionGoesOnAfterARestart(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	s := create(t, table, m)
	table.Prove(start, prove(m, 0, 0), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 7), s.Port)
	wantOutcome(t, "bind", bind(t, table, binder(m, 1, 0), home, s.Port), drop.None)
	wantOutcome(t, "bind at the shared port", bind(t, table, binder(m, 0, 3), away, 0), drop.None)
	table.Settle(s.ID, Traffic{7, 8})

	next, adopted := mustRestart(t, kernel)
	want := []Adopted{{
		Session: s, Settled: Traffic{7, 8},
		Bound: []Bound{
			{leg.ID{Session: s.ID, Leg: 1}, bindAt(home, s.Port)},
			{leg.ID{Session: s.ID, Leg: 0, Connection: 3}, bindAt(away, sharedPort)},
		},
	}}
	if d := cmp.Diff(want, adopted, compareAdopted); d != "" {
		t.Errorf("adopted (-want +got):\n%s", d)
	}
	for _, a := range []string{"192.0.2.10", "10.0.0.1"} {
		wantExpected(t, next, netip.MustParseAddr(a), s.Packet[0], s, 0)
	}
	wantExpected(t, next, home.Addr(), s.Packet[1], s, 1)
	// The order is known, and its port and places are taken.
	if got, fresh, err := next.Create(start, m); got != s || fresh || err != nil {
		t.Errorf("the order again: %+v, %v, %v", got, fresh, err)
	}
	stranger := packetOrder(netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("10.9.9.8"))
	wantOutcome(t, "its source at the shared port", bind(t, next, binderOf(t, next, stranger), away, 0), drop.SourceTaken)
	list := next.List()
	if i := slices.IndexFunc(list, func(l Info) bool { return l.ID == s.ID }); i < 0 || list[i].Created.Unix() != start.Unix() || list[i].Settled != (Traffic{7, 8}) {
		t.Errorf("session %d of %+v", i, list)
	}
	// Its lifetime begins anew, and ends.
	at := start.Add(time.Hour + time.Minute)
	if early := next.Expired(at.Add(-time.Second)); slices.Contains(early, s.ID) {
		t.Error("it expired early")
	}
	if due := next.Expired(at); !slices.Contains(due, s.ID) {
		t.Errorf("expired: %v", due)
	}
	next.End(s.ID)
	for key := range kernel.records {
		if id, _, _ := parseKey(key); id == s.ID {
			t.Error("a record is left of an ended session")
		}
	}
}

// binderOf makes a session and returns a binder for its leg 0.
func binderOf(t *testing.T, table *Table, m wire.CreateSession) *leg.Binder {
	t.Helper()
	create(t, table, m)
	return binder(m, 0, 0)
}

// T3 across a restart: what was captured before opens nothing after.
func TestNothingIsReplayedAfterARestart(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	s := create(t, table, m)
	joined, waiting, next := prove(m, 0, 0), prove(m, 0, 5), prove(m, 0, 6)
	for _, p := range []leg.Preface{joined, prove(m, 1, 0), waiting} {
		if why := table.Prove(start, p, home, s.Port); why != drop.None {
			t.Fatal(why)
		}
	}
	table.Join(joined.ID)
	b := binder(m, 0, 0)
	wantOutcome(t, "bind", bind(t, table, b, home, s.Port), drop.None)
	b.Start()
	wantOutcome(t, "bind", bind(t, table, b, away, s.Port), drop.None)

	later, _ := mustRestart(t, kernel)
	for what, p := range map[string]leg.Preface{
		"a joined one": joined, "one that waited": waiting, "a new one of that number": prove(m, 0, 5), "one below": prove(m, 1, 3),
	} {
		if why := later.Prove(start, p, home, s.Port); why != drop.Joined {
			t.Errorf("%s: %v, want %v", what, why, drop.Joined)
		}
	}
	if why := later.Prove(start, next, home, s.Port); why != drop.None {
		t.Errorf("the next number: %v", why)
	}
	old := binder(m, 0, 0) // its counter begins at 1, as the first of b
	wantOutcome(t, "an old bind", bind(t, later, old, home, s.Port), drop.Replayed)
	wantOutcome(t, "the last bind from elsewhere", bind(t, later, replayOf(m, 2), home, s.Port), drop.Replayed)
	b.Start()
	wantOutcome(t, "a new bind", bind(t, later, b, home, s.Port), drop.None)
}

// replayOf returns a binder that is at its nth counter.
func replayOf(m wire.CreateSession, n int) *leg.Binder {
	b := binder(m, 0, 0)
	for range n - 1 {
		b.Start()
	}
	return b
}

func TestMostBindsSurviveInSeveralRecords(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"))
	s := create(t, table, m)
	for n := range uint16(MaxBound) {
		for l := range uint8(2) {
			from := netip.AddrPortFrom(netip.MustParseAddr("2001:db8::ffff"), 1+2*n+uint16(l))
			wantOutcome(t, "bind", bind(t, table, binder(m, l, n), from, s.Port), drop.None)
		}
	}
	if len(kernel.records) != 1+bindParts {
		t.Errorf("%d records, want %d", len(kernel.records), 1+bindParts)
	}
	for key, b := range kernel.records {
		if len(b) > MaxRecord {
			t.Errorf("record %x has %d bytes", key, len(b))
		}
	}
	_, adopted := mustRestart(t, kernel)
	if len(adopted) != 1 || len(adopted[0].Bound) != 2*MaxBound {
		t.Fatalf("adopted %+v", adopted)
	}
	for i, b := range adopted[0].Bound {
		if b.At.Remote.Port() != uint16(i+1) {
			t.Errorf("bind %d is of port %d", i, b.At.Remote.Port())
		}
	}
	// One part alone is worth nothing: counters would be forgotten.
	for part := range bindParts {
		m := newMemory()
		m.records = maps.Clone(kernel.records)
		delete(m.records, keyOf(s.ID, part))
		if _, adopted, err := restart(m, nil); len(adopted) != 0 || err == nil || len(m.records) != 0 {
			t.Errorf("without part %d: %d adopted, %v, %d records left", part, len(adopted), err, len(m.records))
		}
	}
	table.End(s.ID)
	if len(kernel.records) != 0 {
		t.Errorf("%d records are left", len(kernel.records))
	}
}

func TestUnprovenSessionIsNotKeptLonger(t *testing.T) {
	table, kernel := packetTable()
	s := create(t, table, packetOrder(annAt, boAt))
	next, _ := mustRestart(t, kernel)
	if due := next.Expired(start.Add(time.Hour + ProveTime)); len(due) != 1 {
		t.Errorf("expired: %v", due)
	}
	table.Installed(start, s.ID)
	next, _ = mustRestart(t, kernel)
	if due := next.Expired(start.Add(time.Hour + ProveTime)); len(due) != 0 {
		t.Errorf("expired: %v, though a pair was installed", due)
	}
}

func TestSessionThatDoesNotFitIsNotAdopted(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	s := create(t, table, m)
	for what, c := range map[string]struct {
		tune func(*Limits)
		want string
	}{
		"other packet ports":  {func(l *Limits) { l.Packet.First, l.Packet.Last = 30000, 30007 }, "begins none of the relay's blocks"},
		"blocks not in step":  {func(l *Limits) { l.Packet.First, l.Packet.Last = 28668, 28691 }, "begins none of the relay's blocks"},
		"other session ports": {func(l *Limits) { l.First = s.Port + 1 }, "its port"},
		"fewer session ports": {func(l *Limits) { l.Last = s.Port - 1; l.First = 1024 }, "its port"},
	} {
		left := newMemory()
		left.records = maps.Clone(kernel.records)
		next, adopted, err := restart(left, c.tune)
		if len(adopted) != 0 || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: adopted %v, %v", what, adopted, err)
		}
		if len(left.records)+len(left.admitted)+next.Len()+len(next.ports.used)+len(next.blocks.held) != 0 {
			t.Errorf("%s: something is left", what)
		}
	}
	// A source that is forbidden now is no reason, but is not admitted.
	next, adopted, err := restart(kernel, func(l *Limits) { l.Packet.Sources.Deny = []netip.Prefix{netip.PrefixFrom(annAt, 32)} })
	if len(adopted) != 1 || err != nil {
		t.Fatalf("adopted %v, %v", adopted, err)
	}
	wantNobody(t, next, annAt, s.Packet[0], drop.UnknownSource)
	wantExpected(t, next, boAt, s.Packet[1], s, 1)
	if _, adopted, err := restart(kernel, nil); len(adopted) != 1 || err != nil {
		t.Errorf("once more: adopted %v, %v", adopted, err)
	}
}

// Two processes cannot have left the same port twice; damaged records can.
func TestPortIsAdoptedOnce(t *testing.T) {
	table, kernel := packetTable()
	s := create(t, table, packetOrder(annAt, boAt))
	twin := wire.NewSessionID()
	kernel.records[keyOf(twin, 0)] = slices.Clone(kernel.records[keyOf(s.ID, 0)])
	next, adopted, err := restart(kernel, nil)
	if len(adopted) != 1 || err == nil || next.Len() != 1 || len(kernel.records) != 1 {
		t.Errorf("adopted %v, %v", adopted, err)
	}
}

func TestSessionThatIsNotKeptIsForgottenWhole(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	s := create(t, table, m)
	wantOutcome(t, "bind", bind(t, table, binder(m, 0, 0), home, s.Port), drop.None)
	kernel.full = true
	wantOutcome(t, "bind", bind(t, table, binder(m, 0, 1), away, s.Port), drop.None)
	if len(kernel.records) != 0 {
		t.Errorf("%d records are left, which know less than they should", len(kernel.records))
	}
	kernel.full = false
	table.Settle(s.ID, Traffic{1, 1})
	if len(kernel.records) != 0 {
		t.Error("a record is kept again, without its binds")
	}
}

// The next process must know what a leg was taken for, so that is kept first; what
// changes nothing for it is not kept again.
func TestRecordsAreKeptWhenTheyChange(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	var s Session
	wantPuts := func(what string, want int, do func()) {
		t.Helper()
		before := kernel.puts
		if do(); kernel.puts-before != want {
			t.Errorf("%s: %d records kept, want %d", what, kernel.puts-before, want)
		}
	}
	at := netip.AddrPortFrom(annAt, 1)
	wantPuts("create", 1, func() { s = create(t, table, m) })
	wantPuts("the same order", 0, func() { table.Create(start, m) })
	wantPuts("first number", 1, func() { table.Prove(start, prove(m, 0, 0), at, s.Port) })
	wantPuts("the same number", 0, func() { table.Prove(start, prove(m, 0, 0), at, s.Port) })
	wantPuts("a replay", 0, func() { table.Prove(start, prove(m, 0, 9), at, 1) })
	wantPuts("next number", 1, func() { table.Prove(start, prove(m, 0, 1), at, s.Port) })
	wantPuts("a new source", 1, func() { table.Prove(start, prove(m, 0, 1), home, s.Port) })
	wantPuts("bind", 1, func() { bind(t, table, binder(m, 0, 0), at, s.Port) })
	wantPuts("bind from elsewhere", 2, func() { bind(t, table, binder(m, 1, 0), home, s.Port) })
	wantPuts("a pair", 0, func() { table.Installed(start, s.ID) })
	wantPuts("traffic", 0, func() { table.Renew(start, s.ID, Traffic{1, 2}) })
	wantPuts("settled", 1, func() { table.Settle(s.ID, Traffic{1, 2}) })
	wantPuts("settled again", 0, func() { table.Settle(s.ID, Traffic{1, 2}) })
	wantPuts("another port", 1, func() { table.MovePort(s.ID) })
}

// goldenRecords are the records of a session, all fields set, as the comment on
// them says.
var goldenRecords = map[RecordKey]string{
	keyOf(goldenID, 0): "02" + // version
		"0003 616e6e 0002 626f" + // portals
		strings.Repeat("a0", 32) + strings.Repeat("a1", 32) + // secrets
		"07" + // transports
		"0000003c" + // lifetime
		"0000000069222540" + // created
		"01" + // proven
		"4e21 7000 7008" + // ports
		"00000003" + // next
		"0000000000000005 0000000000000006" + // meetings
		"0000000000000007 0000000000000008" + // settled
		"02 04c000020a 040a000001" + // sources of leg 0
		"01 04c0000214", // of leg 1
	keyOf(goldenID, 1): "02" + // version
		"02" + // binds
		"01 0002 0000000000000009 04c0000201 0fa0 04c6336401 4e21 00" +
		"00 0000 0000000000000001 10 20010db8000000000000000000000001 0fa1 00 01bb 01",
}

var goldenID = wire.SessionID(bytes.Repeat([]byte{0x51}, 16))

func goldenSession() *session {
	s := &session{
		Session: Session{
			ID: goldenID, Portals: [2]string{"ann", "bo"}, Transports: 7, Lifetime: time.Minute, Port: 20001, Packet: [2]uint16{28672, 28680},
		},
		secrets: [2]wire.Secret{wire.Secret(bytes.Repeat([]byte{0xa0}, 32)), wire.Secret(bytes.Repeat([]byte{0xa1}, 32))},
		created: time.Unix(0x69222540, 0), proven: true, next: 3, meetings: [2]uint64{5, 6}, settled: Traffic{7, 8},
		sources: [2][]netip.Addr{{annAt, netip.MustParseAddr("10.0.0.1")}, {boAt}},
	}
	s.bind(leg.ID{Session: goldenID, Leg: 1, Connection: 2}, bound{leg.Binding{Counter: 9, Source: home}, bindAt(home, 20001), false})
	v6 := netip.MustParseAddrPort("[2001:db8::1]:4001")
	s.bind(leg.ID{Session: goldenID}, bound{leg.Binding{Counter: 1, Source: v6}, bpf.Leg{Remote: v6, Port: 443}, true})
	return s
}

func golden(t testing.TB, part int) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(goldenRecords[keyOf(goldenID, part)], " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readPart reads a record and writes it again.
func readPart(part int, b []byte) ([]byte, error) {
	if part == 0 {
		s, err := parseRecord(goldenID, b)
		if err != nil {
			return nil, err
		}
		return s.record(), nil
	}
	s := &session{Session: Session{ID: goldenID, Port: 20001}}
	if err := s.parseBinds(b); err != nil {
		return nil, err
	}
	return s.bindRecord(1), nil
}

func TestRecordsHaveTheirGoldenBytes(t *testing.T) {
	s := goldenSession()
	for part, got := range [][]byte{s.record(), s.bindRecord(1)} {
		if want := golden(t, part); !bytes.Equal(got, want) {
			t.Errorf("part %d:\n got %x\nwant %x", part, got, want)
		}
	}
	f := &found{}
	f.read(goldenID, 0, golden(t, 0))
	f.read(goldenID, 1, golden(t, 1))
	got, err := f.session()
	if err != nil {
		t.Fatal(err)
	}
	s.usedUp = s.next
	opts := cmp.Options{cmp.AllowUnexported(session{}, bound{}), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}, wire.Secret{})}
	if d := cmp.Diff(s, got, opts); d != "" {
		t.Errorf("read (-want +got):\n%s", d)
	}
}

func TestCutLongOrFalseRecordsAreRefused(t *testing.T) {
	for part := range 2 {
		full := golden(t, part)
		for n := range full {
			if _, err := readPart(part, full[:n]); err == nil {
				t.Errorf("part %d is read from %d of %d bytes", part, n, len(full))
			}
		}
		if _, err := readPart(part, append(slices.Clone(full), 0)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("part %d with a byte more: %v", part, err)
		}
	}
	text := func(part int) string { return hex.EncodeToString(golden(t, part)) }
	for what, c := range map[string]struct {
		part     int
		old, new string
	}{
		"another version":       {0, "02", "01"},
		"a portal of no name":   {0, "626f", "2a6f"},
		"no lifetime":           {0, "0000003c", "00000000"},
		"made after 9999":       {0, "0000000069222540", "ffffffffffffffff"},
		"proven or what":        {0, "014e21", "024e21"},
		"packet ports of one":   {0, "70007008", "70000000"},
		"no packet ports":       {0, "70007008", "00000000"},
		"numbers above 65536":   {0, "00000003", "00010001"},
		"five sources":          {0, "0204c000020a", "0504c000020a"},
		"a source that is none": {0, "0104c0000214", "0100"},
		"binds of version 1":    {1, "0202", "0102"},
		"no binds":              {1, text(1), "0200"},
		"eleven binds":          {1, "0202", "020b"},
		"a bind of leg 2":       {1, "0202010002", "0202020002"},
		"counter 0":             {1, "0000000000000009", "0000000000000000"},
		"port 0":                {1, "c63364014e21", "c63364010000"},
		"another port":          {1, "c63364014e21", "c63364014e22"},
		"shared at its own":     {1, "4e2100", "4e2101"},
		"shared or what":        {1, "01bb01", "01bb02"},
		"twice the same":        {1, text(1), "0202" + strings.Repeat(text(1)[4:4+2*33], 2)},
	} {
		bad, err := hex.DecodeString(strings.Replace(text(c.part), c.old, c.new, 1))
		if err != nil || !strings.Contains(text(c.part), c.old) {
			t.Fatalf("%s: %v", what, err)
		}
		if b, err := readPart(c.part, bad); err == nil {
			t.Errorf("%s is read as %x", what, b)
		}
	}
}

func TestKeysThatAreNoneAreDeleted(t *testing.T) {
	kernel := newMemory()
	long, high, none := keyOf(goldenID, 0), keyOf(goldenID, bindParts+1), keyOf(wire.SessionID{}, 0)
	long[23] = 1
	for _, key := range []RecordKey{long, high, none} {
		kernel.records[key] = golden(t, 0)
	}
	if _, adopted, err := restart(kernel, nil); len(adopted) != 0 || err == nil || len(kernel.records) != 0 {
		t.Errorf("adopted %v, %v, %d records left", adopted, err, len(kernel.records))
	}
}

func TestLongestRecordFits(t *testing.T) {
	s := goldenSession()
	v6 := netip.MustParseAddr("2001:db8::1")
	s.Portals = [2]string{strings.Repeat("x", 63), strings.Repeat("y", 63)}
	for i := range s.sources {
		s.sources[i] = slices.Repeat([]netip.Addr{v6}, MaxSources)
	}
	if n := len(s.record()); n > MaxRecord {
		t.Errorf("part 0 has %d bytes, %d are possible", n, MaxRecord)
	}
}

// FuzzRecord checks that a record that is read is written the same, and that
// no other does harm.
func FuzzRecord(f *testing.F) {
	for part := range 2 {
		f.Add(part == 1, golden(f, part))
	}
	f.Fuzz(func(t *testing.T, binds bool, b []byte) {
		part := 0
		if binds {
			part = 1
		}
		if got, err := readPart(part, b); err == nil && !bytes.Equal(got, b) {
			t.Errorf("part %d:\n read %x\nwrote %x", part, b, got)
		}
	})
}
