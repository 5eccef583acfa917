package domain

import (
	"time"

	revocationev "github.com/certwright/certwright/api/certwright/events/revocation/v1"
)

// Issuer is a source of certificates. Kind is "acme".
type Issuer struct {
	DisplayName         string   `bson:"display_name"`
	UniqueName          string   `bson:"unique_name"` // team "/" display name in lower case, or the id once deleted
	Kind                string   `bson:"kind"`
	DirectoryURL        string   `bson:"directory_url"`
	TrustRootsPEM       string   `bson:"trust_roots_pem"`
	IssuedRootsPEM      string   `bson:"issued_roots_pem"`
	Contacts            []string `bson:"contacts"`
	TermsAgreed         bool     `bson:"terms_agreed"`
	AccountKeyAlgorithm string   `bson:"account_key_algorithm"`
	Profile             string   `bson:"profile"`
	Disabled            bool     `bson:"disabled"`
	Limits              []Limit  `bson:"limits"` // given; see EffectiveLimits
}

// RevocationState is the state of a revocation.
type RevocationState string

// The states of a revocation.
const (
	RevocationPending RevocationState = "pending"
	RevocationDone    RevocationState = "done"
	RevocationFailed  RevocationState = "failed"
)

// Revocation is the way of one version to its CA's revocation list.
type Revocation struct {
	RequestID     string          `bson:"request_id"` // id of the fact that asked for it
	VersionID     string          `bson:"version_id"`
	CertificateID string          `bson:"certificate_id"`
	IssuerID      string          `bson:"issuer_id"`
	AccountID     string          `bson:"account_id"`
	Reason        string          `bson:"reason"`
	By            string          `bson:"by"`
	DER           []byte          `bson:"der"`
	State         RevocationState `bson:"state"`
	Already       bool            `bson:"already"`
	Problem       *Problem        `bson:"problem"`
	Retries       int             `bson:"retries"`
	RetryAt       time.Time       `bson:"retry_at"`
}

// ReasonCode returns the CRLReason of RFC 5280 section 5.3.1, and false for a name that ACME CAs do not take.
func ReasonCode(name string) (uint, bool) {
	code, ok := map[string]uint{
		"": 0, "unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5,
	}[name]
	return code, ok
}

// Done ends the revocation: the CA has revoked the certificate, now or before.
func (r *Revocation) Done(already bool) Fact {
	r.State, r.Already, r.Problem = RevocationDone, already, nil
	return Fact{Keep: OutcomeKey, Msg: &revocationev.Done{VersionId: r.VersionID, CertificateId: r.CertificateID, AlreadyRevoked: already}}
}

// Refused ends the revocation: the CA will not do it.
func (r *Revocation) Refused(p *Problem) Fact {
	p.Retrying = false
	r.State, r.Problem = RevocationFailed, p
	return Fact{Keep: OutcomeKey, Msg: &revocationev.Failed{VersionId: r.VersionID, CertificateId: r.CertificateID, Problem: p.Message()}}
}
