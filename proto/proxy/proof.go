package proxy

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// maxParams bounds the parameters of one challenge.
const maxParams = 32

// challenge is proof that a proxy asks for: Basic (RFC 7617) or Digest (RFC 7616) with
// qop=auth.
type challenge struct {
	digest               bool
	algorithm            string // "SHA-256" or "MD5"
	named                bool   // the proxy has named the algorithm
	realm, nonce, opaque string
	hasOpaque            bool
	stale                bool
	count                uint32 // how often the nonce was used; guarded by Proxy.mu
}

// strongest returns the strongest challenge of a header that can be met, nil if there is none,
// and the schemes that are there.
func strongest(header []string) (best *challenge, schemes string) {
	rank := func(c *challenge) int {
		switch {
		case c == nil:
			return 0
		case !c.digest:
			return 1
		case c.algorithm == "MD5":
			return 2
		}
		return 3
	}
	var names []string
	for _, line := range header {
		for _, asked := range parseChallenges(line) {
			if !slices.Contains(names, asked.scheme) && len(names) < maxParams {
				names = append(names, asked.scheme)
			}
			if c := asked.challenge(); rank(c) > rank(best) {
				best = c
			}
		}
	}
	if len(names) == 0 {
		return best, "it does not say how"
	}
	return best, quote(strings.Join(names, ", "))
}

// asked is a challenge as it is written (RFC 9110 section 11.6.1).
type asked struct {
	scheme string
	params map[string]string // by name in small letters
}

// challenge returns what is asked for; nil: that is not known here.
func (a asked) challenge() *challenge {
	switch strings.ToLower(a.scheme) {
	case "basic":
		return &challenge{}
	case "digest":
		c := &challenge{digest: true, algorithm: "MD5", realm: a.params["realm"], nonce: a.params["nonce"], stale: strings.EqualFold(a.params["stale"], "true")}
		c.opaque, c.hasOpaque = a.params["opaque"]
		if name, ok := a.params["algorithm"]; ok {
			c.algorithm, c.named = strings.ToUpper(name), true
		}
		auth := false
		for qop := range strings.SplitSeq(a.params["qop"], ",") {
			auth = auth || strings.EqualFold(strings.TrimSpace(qop), "auth")
		}
		if auth && c.nonce != "" && (c.algorithm == "MD5" || c.algorithm == "SHA-256") {
			return c
		}
	}
	return nil
}

// parseChallenges reads the challenges of one line. What is none it skips.
func parseChallenges(line string) (list []asked) {
	s := line
	for {
		s = strings.TrimLeft(s, " \t,=\"")
		if s == "" {
			return list
		}
		end := strings.IndexAny(s, " \t,=\"")
		if end < 0 {
			end = len(s)
		}
		name := s[:end]
		s = strings.TrimLeft(s[end:], " \t")
		if !strings.HasPrefix(s, "=") {
			list = append(list, asked{name, make(map[string]string)})
			continue
		}
		var value string
		value, s = parseValue(strings.TrimLeft(s[1:], " \t"))
		if len(list) > 0 && len(list[len(list)-1].params) < maxParams {
			list[len(list)-1].params[strings.ToLower(name)] = value
		}
	}
}

// parseValue takes a token or a quoted string off s.
func parseValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, " \t,")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// proof returns the proof for one CONNECT, and the challenge that it meets; none where none
// was asked for so far.
func (p *Proxy) proof(address string) (string, *challenge, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.known
	if c == nil {
		return "", nil, nil
	}
	password, err := p.secret()
	if err != nil {
		return "", nil, &Error{p.String(), Unauthorized, err}
	}
	if !c.digest {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+password)), c, nil
	}
	c.count++
	return p.digest(c, address, password, rand.Text()), c, nil
}

// digest meets a challenge of Digest (RFC 7616 section 3.4).
func (p *Proxy) digest(c *challenge, address, password, own string) string {
	sum := md5.New
	if c.algorithm == "SHA-256" {
		sum = sha256.New
	}
	count := fmt.Sprintf("%08x", c.count)
	who := hashed(sum, p.user, c.realm, password)
	what := hashed(sum, "CONNECT", address)
	s := fmt.Sprintf(`Digest username=%s, realm=%s, nonce=%s, uri=%s, qop=auth, nc=%s, cnonce=%s, response=%s`,
		quoted(p.user), quoted(c.realm), quoted(c.nonce), quoted(address), count, quoted(own), quoted(hashed(sum, who, c.nonce, count, own, "auth", what)))
	if c.named {
		s += ", algorithm=" + c.algorithm
	}
	if c.hasOpaque {
		s += ", opaque=" + quoted(c.opaque)
	}
	return s
}

func hashed(sum func() hash.Hash, parts ...string) string {
	h := sum()
	h.Write([]byte(strings.Join(parts, ":")))
	return hex.EncodeToString(h.Sum(nil))
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// passed takes that proof was good, and the nonce of the next one if the proxy has named it.
func (p *Proxy) passed(used *challenge, info string) {
	if used == nil || !used.digest || info == "" {
		return
	}
	// The header has the parameters of a challenge, and no scheme.
	list := parseChallenges("Digest " + info)
	next := list[0].params["nextnonce"]
	if next == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == used && next != used.nonce {
		c := *used
		c.nonce, c.count = next, 0
		p.known = &c
	}
}

// forget has the next connection begin without proof.
func (p *Proxy) forget(used *challenge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == used {
		p.known = nil
	}
}
