package policy

import (
	"fmt"
	"net/netip"
	"time"
)

// test is one [[test]]: something the policy must allow, or must deny.
type test struct {
	pair  pair
	allow bool
	when  conditions // at is zero for the time of the test
	key   string
}

func (p *Policy) readTests(raw *rawPolicy, _ time.Time) error {
	for i := range raw.Test {
		t, err := p.readTest(&raw.Test[i], fmt.Sprintf("test[%d]", i))
		if err != nil {
			return err
		}
		p.tests = append(p.tests, t)
	}
	return nil
}

func (p *Policy) readTest(raw *rawTest, key string) (test, error) {
	t := test{allow: raw.Allow != "", key: key + ".deny", when: conditions{opened: raw.Opened, anyHour: raw.At == nil}}
	text := raw.Deny
	if t.allow {
		t.key, text = key+".allow", raw.Allow
	}
	if (raw.Allow == "") == (raw.Deny == "") {
		return t, p.file.Errorf(key, "a test has one of allow and deny")
	}
	var err error
	if t.pair, err = p.parsePair(text); err != nil {
		return t, p.file.Errorf(t.key, "test: %v", err)
	}
	if raw.At != nil {
		if t.when.at, err = readMoment("at", raw.At); err != nil {
			return t, p.file.Errorf(key+".at", "test: %v", err)
		}
	}
	if p.file.Has(key + ".client") {
		if t.when.client, err = netip.ParseAddr(raw.Client); err != nil || t.when.client.Zone() != "" {
			return t, p.file.Errorf(key+".client", "test: %.60q is no address: a test asks for one client, as in client = \"192.168.7.9\"", raw.Client)
		}
	}
	return t, nil
}

// Tests returns how many tests the policy has.
func (p *Policy) Tests() int { return len(p.tests) }

// Test runs the policy's own tests, those without a time as of now, and returns one
// error for each that fails. Whether a portal is enrolled makes no difference.
func (p *Policy) Test(now time.Time) []error {
	var failed []error
	for _, t := range p.tests {
		when := t.when
		if when.at.IsZero() {
			when.at = now
		}
		a := p.judge(t.pair, when)
		switch {
		case a.Allowed == t.allow:
		case t.allow:
			failed = append(failed, p.file.Errorf(t.key, "test failed: it must be allowed, and %s", a.Why))
		default:
			failed = append(failed, p.file.Errorf(t.key, "test failed: it must be denied, and the forward %q allows it (%s)", a.Forward, a.Place))
		}
	}
	return failed
}
