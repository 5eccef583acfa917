package domain

import (
	"fmt"
	"slices"
	"strings"
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
	Limits              []Limit  `bson:"limits"`          // given; see EffectiveLimits
	PreferredChain      string   `bson:"preferred_chain"` // common name of the wanted root; empty: the CA's default
	ProxyURL            string   `bson:"proxy_url"`       // empty: as the environment says
	EABKeyID            string   `bson:"eab_key_id"`      // empty: no external account
	EABKey              Sealed   `bson:"eab_key"`         // the HMAC key, raw
	Edits               int64    `bson:"edits"`           // grows with every edit
}

// Sealed is a secret as it is stored. The domain cannot open it.
type Sealed struct {
	KEK        string `bson:"kek"`
	DEK        []byte `bson:"dek"`
	Ciphertext []byte `bson:"ciphertext"`
}

// Meta is what a CA's directory says of itself (RFC 8555 section 7.1.1).
type Meta struct {
	Profiles                []string // sorted
	TermsOfService          string
	ExternalAccountRequired bool
}

// Unfit says why no account can be registered at a CA for the issuer as it is; nil: nothing speaks against it.
func (i Issuer) Unfit(m Meta) *Problem {
	if m.TermsOfService != "" && !i.TermsAgreed {
		return &Problem{Reason: "TERMS_NOT_AGREED", Detail: fmt.Sprintf(
			"the CA's terms of service at %s were not agreed to; read them and set acme.termsAgreed on the issuer", m.TermsOfService)}
	}
	if m.ExternalAccountRequired && i.EABKeyID == "" {
		return &Problem{Reason: "EXTERNAL_ACCOUNT_REQUIRED", Detail: "the CA takes only accounts that are bound to one you have there; " +
			"get a key id and an HMAC key from the CA and set them as acme.externalAccount on the issuer"}
	}
	return nil
}

// UnknownProfile says why a profile cannot be ordered at a CA; nil when it can.
func UnknownProfile(profile string, m Meta) *Problem {
	if profile == "" || slices.Contains(m.Profiles, profile) {
		return nil
	}
	allowed := "it has none; leave the profile empty"
	if len(m.Profiles) > 0 {
		allowed = "allowed are " + strings.Join(m.Profiles, ", ") + ", or none for the CA's default"
	}
	return &Problem{Reason: "PROFILE_UNKNOWN", Detail: fmt.Sprintf("the CA does not offer the profile %q: %s. Nothing was ordered; change the profile of the certificate or of the issuer", profile, allowed)}
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
	KeyID         string          `bson:"key_id"` // of the certificate, empty when keys does not have it
	ByKey         bool            `bson:"by_key"` // the account may not revoke it: asked by the certificate's own key
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
