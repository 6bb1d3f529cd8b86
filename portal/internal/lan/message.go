package lan

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxPacket is the longest packet that is read (RFC 6762 section 17).
	maxPacket = 9000
	// maxRecords bounds the questions, and the records, of a packet that are looked at.
	maxRecords = 64
	// maxQuestions bounds the names that one packet asks for: it fits any link.
	maxQuestions = 16
	// ttl is how long others may keep an answer, in seconds.
	ttl = 120
	// cacheFlush says that the record is all there is (RFC 6762 section 10.2).
	cacheFlush = dnsmessage.Class(1 << 15)

	suffix     = "._netport._udp.local."
	hostSuffix = ".local."
)

// place is where a portal may be reached by one IP version.
type place struct {
	port  uint16 // 0: nowhere
	addrs []netip.Addr
}

// query returns a packet that asks for labels, at most maxQuestions.
func query(labels []string) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	for _, l := range labels {
		name, err := dnsmessage.NewName(l + suffix)
		if err != nil {
			return nil, err
		}
		if err := b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// answer returns the packet that says where label is: a SRV record for each place, with
// the addresses of its target, and an empty TXT record.
func answer(label string, places []place) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	header := func(name string) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET | cacheFlush, TTL: ttl}
	}
	target := func(i int) string { return string(rune('a'+i)) + label + hostSuffix }
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	for i, p := range places {
		srv := dnsmessage.SRVResource{Port: p.port, Target: dnsmessage.MustNewName(target(i))}
		if err := b.SRVResource(header(label+suffix), srv); err != nil {
			return nil, err
		}
	}
	// An instance without a TXT record is none to others (RFC 6763 section 6.1).
	if err := b.TXTResource(header(label+suffix), dnsmessage.TXTResource{TXT: []string{""}}); err != nil {
		return nil, err
	}
	if err := b.StartAdditionals(); err != nil {
		return nil, err
	}
	for i, p := range places {
		for _, a := range p.addrs {
			var err error
			if a.Is4() {
				err = b.AResource(header(target(i)), dnsmessage.AResource{A: a.As4()})
			} else {
				err = b.AAAAResource(header(target(i)), dnsmessage.AAAAResource{AAAA: a.As16()})
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return b.Finish()
}

// message is what a packet says that matters here: the labels that it asks for, or where
// those are that it tells of.
type message struct {
	asked []string
	told  []told
}

// told is one SRV record.
type told struct {
	label  string
	port   uint16
	target string
	addrs  []netip.Addr // of the target; none: the packet does not say
}

// labelOf returns the label of a name of this service; false: it is another's.
func labelOf(n dnsmessage.Name) (string, bool) {
	return strings.CutSuffix(strings.ToLower(n.String()), suffix)
}

// parse reads a packet, which may be anybody's. What it says beyond the bounds is not
// looked at; what is malformed ends it.
func parse(b []byte) (m message) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.OpCode != 0 {
		return m
	}
	for range maxRecords {
		q, err := p.Question()
		if err != nil {
			break
		}
		label, ours := labelOf(q.Name)
		if ours && !h.Response && q.Class&^cacheFlush == dnsmessage.ClassINET && asksFor(q.Type) {
			m.asked = append(m.asked, label)
		}
	}
	if !h.Response {
		return m
	}
	if err := p.SkipAllQuestions(); err != nil {
		return m
	}
	records := reader{parser: &p, hosts: make(map[string][]netip.Addr)}
	for _, section := range []func() (dnsmessage.ResourceHeader, error){p.AnswerHeader, p.AuthorityHeader, p.AdditionalHeader} {
		if err := records.section(section); err != nil {
			break
		}
	}
	for _, t := range records.told {
		t.addrs = records.hosts[t.target]
		m.told = append(m.told, t)
	}
	return m
}

// asksFor reports whether a question of that type is about what answer says.
func asksFor(t dnsmessage.Type) bool {
	return t == dnsmessage.TypeSRV || t == dnsmessage.TypeTXT || t == dnsmessage.TypeALL
}

// reader takes the records of a packet.
type reader struct {
	parser *dnsmessage.Parser
	read   int
	told   []told
	hosts  map[string][]netip.Addr
}

// section takes a section: next returns the header of each of its records.
func (r *reader) section(next func() (dnsmessage.ResourceHeader, error)) error {
	for {
		h, err := next()
		if err == dnsmessage.ErrSectionDone {
			return nil
		}
		if err != nil {
			return err
		}
		if r.read++; r.read > maxRecords {
			return errTooMany
		}
		if err := r.record(h); err != nil {
			return err
		}
	}
}

func (r *reader) record(h dnsmessage.ResourceHeader) error {
	host := strings.ToLower(h.Name.String())
	switch label, ours := labelOf(h.Name); {
	case h.Class&^cacheFlush != dnsmessage.ClassINET || h.TTL == 0: // 0: it says goodbye
	case ours && h.Type == dnsmessage.TypeSRV:
		srv, err := r.parser.SRVResource()
		if err == nil {
			r.told = append(r.told, told{label: label, port: srv.Port, target: strings.ToLower(srv.Target.String())})
		}
		return err
	case h.Type == dnsmessage.TypeA:
		a, err := r.parser.AResource()
		if err == nil {
			r.hosts[host] = append(r.hosts[host], netip.AddrFrom4(a.A))
		}
		return err
	case h.Type == dnsmessage.TypeAAAA:
		a, err := r.parser.AAAAResource()
		if err == nil {
			r.hosts[host] = append(r.hosts[host], netip.AddrFrom16(a.AAAA).Unmap())
		}
		return err
	}
	return r.skip()
}

// skip leaves a record out. Each section has its own call for that, and only the one
// that is being read does anything.
func (r *reader) skip() error {
	err := r.parser.SkipAnswer()
	if err != nil {
		err = r.parser.SkipAuthority()
	}
	if err != nil {
		err = r.parser.SkipAdditional()
	}
	return err
}
