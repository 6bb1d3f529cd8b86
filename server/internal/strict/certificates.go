package strict

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
)

// maxAhead is how far ahead of the clock here a certificate may begin: the server's
// clock may be a little ahead when it revokes a name.
const maxAhead = 5 * time.Minute

// CertificateRequests are the certificates that wait at a server for the key of the CA.
type CertificateRequests struct {
	Domain   string               `json:"domain"`
	Requests []CertificateRequest `json:"requests"`
}

// CertificateRequest is one of them. What counts is what its holder has signed; name
// and key beside it are for people.
type CertificateRequest struct {
	Role    identity.Role    `json:"role"`
	Name    string           `json:"name"`
	Key     identity.KeyHash `json:"key"`
	Request []byte           `json:"request"` // PKCS #10, DER
	Begin   time.Time        `json:"begin,omitzero"`
	Since   time.Time        `json:"since"`
}

// Certificates answers CertificateRequests.
type Certificates struct {
	Domain       string        `json:"domain"`
	Certificates []Certificate `json:"certificates"`
}

// Certificate is one that was signed.
type Certificate struct {
	Role  identity.Role `json:"role"`
	Name  string        `json:"name"`
	Chain [][]byte      `json:"chain"` // DER, leaf first
}

// CertificateJob is one signing of certificates.
type CertificateJob struct {
	Requests  CertificateRequests
	Authority *ca.Authority
	Life      time.Duration
	Known     Known
	// Accepted are keys that count on the operator's word: of portals by name, of others
	// by role and name, as in "relay/relay-1" and "admin/ann".
	Accepted map[string][]identity.KeyHash
}

// Made is a certificate that was signed, for people.
type Made struct {
	ID       identity.ID
	Key      identity.KeyHash
	NotAfter time.Time
}

// CertificateResult is what came of it. Whoever is a stranger, or asks for what cannot
// be, gets nothing, and the others get theirs all the same.
type CertificateResult struct {
	Signed    Certificates
	Known     Known // after it
	Made      []Made
	Strangers []Stranger
	Refused   []error
}

// Sign signs certificates for the names and keys that are known, and for those that were
// accepted, which are known from then on. Of a request it takes the name, the role and
// the key, and nothing else.
func (j CertificateJob) Sign(ctx context.Context) (CertificateResult, error) {
	q := j.Requests
	if j.Known.Domain != "" && q.Domain != j.Known.Domain {
		return CertificateResult{}, fmt.Errorf("the requests are of the domain %q, and what is known here is of %q", q.Domain, j.Known.Domain)
	}
	r := CertificateResult{Known: j.Known.clone(), Signed: Certificates{Domain: q.Domain, Certificates: []Certificate{}}}
	r.Known.Domain = q.Domain
	for _, c := range q.Requests {
		asked, err := identity.ParseRequest(c.Request)
		if err == nil && asked.ID.Domain != q.Domain {
			err = fmt.Errorf("it asks for %s, which is of another domain", asked.ID)
		}
		if err != nil {
			r.Refused = append(r.Refused, fmt.Errorf("a request of %s %s: %w", c.Role, c.Name, err))
			continue
		}
		if s, strange := r.Known.meet(asked, j.Accepted); strange {
			r.Strangers = append(r.Strangers, s)
			continue
		}
		if err := j.sign(ctx, &r, asked, c.Begin); err != nil {
			r.Refused = append(r.Refused, err)
		}
	}
	return r, nil
}

func (j CertificateJob) sign(ctx context.Context, r *CertificateResult, asked identity.Request, begin time.Time) error {
	if begin.After(time.Now().Add(maxAhead)) {
		return fmt.Errorf("a certificate for %s is to begin at %s, which is to come: is a clock wrong?", asked.ID, begin.UTC().Format(time.RFC3339))
	}
	chain, err := j.Authority.Issue(ctx, ca.Order{Role: asked.ID.Role, Name: asked.ID.Name, Public: asked.Public, Life: j.Life, Begin: begin})
	if err != nil {
		return err
	}
	c := Certificate{Role: asked.ID.Role, Name: asked.ID.Name}
	for _, cert := range chain {
		c.Chain = append(c.Chain, cert.Raw)
	}
	r.Signed.Certificates = append(r.Signed.Certificates, c)
	r.Made = append(r.Made, Made{ID: asked.ID, Key: asked.Key, NotAfter: chain[0].NotAfter})
	return nil
}

// meet reports whether a name comes with a key that is neither known nor accepted; one
// that was accepted is known then.
func (k *Known) meet(asked identity.Request, accepted map[string][]identity.KeyHash) (Stranger, bool) {
	table := k.keys(asked.ID.Role)
	title := asked.ID.Name
	if asked.ID.Role != identity.Portal {
		title = string(asked.ID.Role) + "/" + title
	}
	if table != nil && slices.Contains(table[asked.ID.Name], asked.Key) {
		return Stranger{}, false
	}
	if table == nil || !slices.Contains(accepted[title], asked.Key) {
		return Stranger{Portal: title, Key: asked.Key, Other: len(table[asked.ID.Name]) > 0}, true
	}
	table[asked.ID.Name] = append(table[asked.ID.Name], asked.Key)
	return Stranger{}, false
}

// ErrNothing says that nothing came through a pipe.
var ErrNothing = errors.New("nothing arrived: did the command before this one fail?")
