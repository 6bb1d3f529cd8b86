package peers

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
)

var begin = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// leaf is a certificate of a name, valid for a time.
func leaf(name string, life time.Duration) *x509.Certificate {
	return &x509.Certificate{Raw: []byte(name), RawSubjectPublicKeyInfo: []byte("key of " + name), NotBefore: begin, NotAfter: begin.Add(life)}
}

// seen is how one carrier is judged at a time.
type seen struct {
	at    time.Duration
	named bool
	want  tunnel.Verdict
}

func judged(t *testing.T, what string, p *proofs, c tunnel.Proof, list ...seen) {
	t.Helper()
	for _, s := range list {
		now := begin.Add(s.at)
		got, next := p.judge(c, s.named, now, now)
		if got != s.want {
			t.Errorf("%s, after %v: %v, want %v", what, s.at, got, s.want)
		}
		if next <= 0 || next > reviewEvery {
			t.Errorf("%s, after %v: to be looked at again in %v", what, s.at, next)
		}
	}
}

func made(cert *x509.Certificate, client bool, since time.Duration) tunnel.Proof {
	return tunnel.Proof{Chain: []*x509.Certificate{cert}, Client: client, Since: begin.Add(since)}
}

// TestCertificatesEndWithinAMinute: the client makes another carrier in time, a
// few times where the peer still has the same certificate, and both sides drop
// what is over.
func TestCertificatesEndWithinAMinute(t *testing.T) {
	const month = 30 * 24 * time.Hour
	cert := leaf("factory", month)
	var p proofs
	judged(t, "the client's", &p, made(cert, true, 0),
		seen{time.Hour, true, tunnel.Keep}, seen{month - 6*time.Minute, true, tunnel.Keep},
		seen{month - 5*time.Minute, true, tunnel.Replace}, seen{month - 4*time.Minute - 30*time.Second, true, tunnel.Replace})
	again := made(cert, true, month-5*time.Minute+time.Second)
	judged(t, "another by the same certificate", &p, again,
		seen{month - 4*time.Minute - 30*time.Second, true, tunnel.Keep}, seen{month - 3*time.Minute, true, tunnel.Replace},
		seen{month + 44*time.Second, true, tunnel.Replace}, seen{month + 45*time.Second, true, tunnel.Drop}, seen{2 * month, true, tunnel.Drop})
	judged(t, "by the renewed certificate", &p, made(leaf("renewed", 2*month), true, month-4*time.Minute), seen{month + time.Minute, true, tunnel.Keep})
	var q proofs
	judged(t, "the server's", &q, made(cert, false, 0),
		seen{month - time.Minute, true, tunnel.Keep}, seen{month + 44*time.Second, true, tunnel.Keep}, seen{month + 45*time.Second, true, tunnel.Drop})
	short := leaf("short", 100*time.Second)
	judged(t, "of a life of 100 s", &q, made(short, true, 0), seen{89 * time.Second, true, tunnel.Keep}, seen{91 * time.Second, true, tunnel.Replace})
	if _, next := q.judge(made(short, false, 0), true, begin.Add(99*time.Second), begin.Add(99*time.Second)); next > 46*time.Second {
		t.Errorf("a second before its end it is looked at in %v", next)
	}
}

// TestKeyThatIsNamedNoMoreHasAMinute, unless a grant names it again.
func TestKeyThatIsNamedNoMoreHasAMinute(t *testing.T) {
	var p proofs
	c := made(leaf("factory", time.Hour), true, 0)
	judged(t, "first", &p, c,
		seen{0, true, tunnel.Keep}, seen{time.Second, false, tunnel.Replace}, seen{30 * time.Second, false, tunnel.Replace},
		seen{40 * time.Second, true, tunnel.Keep}, seen{50 * time.Second, false, tunnel.Replace}, seen{109 * time.Second, false, tunnel.Replace},
		seen{110 * time.Second, false, tunnel.Drop})
	judged(t, "a later carrier by the same key", &p, made(leaf("factory", time.Hour), true, 2*time.Minute), seen{2 * time.Minute, false, tunnel.Drop})
	judged(t, "on the server's side", &p, made(leaf("other", time.Hour), false, 0),
		seen{0, false, tunnel.Keep}, seen{59 * time.Second, false, tunnel.Keep}, seen{60 * time.Second, false, tunnel.Drop})
}

// TestOwnCertificateWasRenewed: what was made before is made anew.
func TestOwnCertificateWasRenewed(t *testing.T) {
	p := proofs{own: begin.Add(time.Minute)}
	judged(t, "before", &p, made(leaf("factory", time.Hour), true, 0), seen{2 * time.Minute, true, tunnel.Replace})
	judged(t, "after", &p, made(leaf("factory", time.Hour), true, 61*time.Second), seen{2 * time.Minute, true, tunnel.Keep})
}

func TestProofsAreBounded(t *testing.T) {
	var p proofs
	for i := range 10 * maxProofs {
		at := begin.Add(time.Duration(i) * time.Second)
		p.judge(made(leaf(fmt.Sprint(i), 24*time.Hour), true, 0), false, at, begin.Add(24*time.Hour-time.Second))
	}
	if len(p.gone) > maxProofs || len(p.tried) > maxProofs {
		t.Errorf("%d keys and %d certificates are remembered", len(p.gone), len(p.tried))
	}
}
