package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// test is one [[test]]: something the policy must allow, or must deny.
type test struct {
	pair  pair
	allow bool
	key   string
}

func (p *Policy) readTests(raw *rawPolicy, _ time.Time) error {
	for i, r := range raw.Test {
		t := test{allow: r.Allow != "", key: fmt.Sprintf("test[%d].deny", i)}
		text := r.Deny
		if t.allow {
			t.key, text = fmt.Sprintf("test[%d].allow", i), r.Allow
		}
		if (r.Allow == "") == (r.Deny == "") {
			return p.file.Errorf(fmt.Sprintf("test[%d]", i), "a test has one of allow and deny")
		}
		from, to, ok := strings.Cut(text, "->")
		if !ok {
			return p.file.Errorf(t.key, "test: %q is not \"PORTAL ENDPOINT -> PORTAL ENDPOINT\"", text)
		}
		var errs [2]error
		t.pair.entry, t.pair.listen, errs[0] = parseEnd(from)
		t.pair.exit, t.pair.target, errs[1] = parseEnd(to)
		if err := errors.Join(errs[0], errs[1]); err != nil {
			return p.file.Errorf(t.key, "test: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		for _, name := range []string{t.pair.entry, t.pair.exit} {
			if _, ok := p.Groups[name]; ok {
				return p.file.Errorf(t.key, "test: %q is a group: a test names portals", name)
			}
		}
		p.tests = append(p.tests, t)
	}
	return nil
}

// Tests returns how many tests the policy has.
func (p *Policy) Tests() int { return len(p.tests) }

// Test runs the policy's own tests as of the time now, and returns one error
// for each that fails. Whether a portal is enrolled makes no difference.
func (p *Policy) Test(now time.Time) []error {
	var failed []error
	for _, t := range p.tests {
		until, ok := p.allowed[t.pair]
		allowed := ok && (until.IsZero() || now.Before(until))
		switch {
		case allowed == t.allow:
		case t.allow && ok:
			failed = append(failed, p.file.Errorf(t.key, "test failed: it must be allowed, and the forward ended at %s", until.Format(time.RFC3339)))
		case t.allow:
			failed = append(failed, p.file.Errorf(t.key, "test failed: it must be allowed, and no forward allows it"))
		default:
			failed = append(failed, p.file.Errorf(t.key, "test failed: it must be denied, and a forward allows it"))
		}
	}
	return failed
}
