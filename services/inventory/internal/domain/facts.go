package domain

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
)

// Fact is an event that a change of the aggregate caused. Its messages are the published language, made here so that a fact and the state that
// makes it true cannot drift apart.
type Fact struct {
	// Key is the natural key under which the certificate keeps the fact; empty: nobody waits and nobody asks again.
	Key string
	// Await: the fact is told again until its answer is heard.
	Await   bool
	Message proto.Message
}

// Outcome is what a method caused.
type Outcome struct {
	// Changed is false when the method found nothing to do; nothing is written then.
	Changed bool
	Facts   []Fact
	// Answered are natural keys whose answer was heard.
	Answered []string
	// Forget are natural keys that nobody will ask for again; one that ends in "/" means all that begin with it.
	Forget []string
}

func (o *Outcome) tell(m proto.Message) { o.Facts = append(o.Facts, Fact{Message: m}) }
func (o *Outcome) keep(key string, m proto.Message) {
	o.Facts = append(o.Facts, Fact{Key: key, Message: m})
}
func (o *Outcome) await(key string, m proto.Message) {
	o.Facts = append(o.Facts, Fact{Key: key, Await: true, Message: m})
}

// Spec is what a certificate should be, in canonical form: names as lower-case A-labels or addresses, sorted after the first.
type Spec struct {
	Issuer        string    `bson:"issuer"`
	Names         []string  `bson:"names"`
	KeyAlgorithm  string    `bson:"key_algorithm"`
	Profile       string    `bson:"profile"`
	ChallengeType string    `bson:"challenge_type"`
	Manual        bool      `bson:"manual"`
	NotAfter      time.Time `bson:"not_after"` // zero: the CA's default
}

// Equal reports whether two specs want the same.
func (s Spec) Equal(o Spec) bool {
	return s.Issuer == o.Issuer && slices.Equal(s.Names, o.Names) && s.KeyAlgorithm == o.KeyAlgorithm && s.Profile == o.Profile &&
		s.ChallengeType == o.ChallengeType && s.Manual == o.Manual && s.NotAfter.Equal(o.NotAfter)
}

// Message is the spec in the published language.
func (s Spec) Message() *typesv1.CertificateSpec {
	return &typesv1.CertificateSpec{
		Issuer: s.Issuer, Names: s.Names, KeyAlgorithm: s.KeyAlgorithm, Profile: s.Profile,
		Challenge: &typesv1.ChallengeSpec{Type: s.ChallengeType, Manual: s.Manual}, NotAfter: Stamp(s.NotAfter),
	}
}

// Facts describe an issued version.
type Facts struct {
	VersionID         string    `bson:"version_id"`
	Number            int64     `bson:"number"` // of the intent that it came from: rises, with a gap for each intent without a version
	OrderID           string    `bson:"order_id"`
	IssuerID          string    `bson:"issuer_id"`
	AccountID         string    `bson:"account_id"`
	KeyID             string    `bson:"key_id"`
	Names             []string  `bson:"names"`
	NotBefore         time.Time `bson:"not_before"`
	NotAfter          time.Time `bson:"not_after"`
	Serial            string    `bson:"serial"`
	FingerprintSHA256 string    `bson:"fingerprint_sha256"`
	SPKISHA256        string    `bson:"spki_sha256"`
	ARICertID         string    `bson:"ari_cert_id"`
	KeyAlgorithm      string    `bson:"key_algorithm"`
	IssuerName        string    `bson:"issuer_name"`
}

// Message is the facts in the published language; nil for nil.
func (f *Facts) Message() *typesv1.VersionFacts {
	if f == nil {
		return nil
	}
	return &typesv1.VersionFacts{
		VersionId: f.VersionID, Number: f.Number, OrderId: f.OrderID, IssuerId: f.IssuerID, AccountId: f.AccountID, KeyId: f.KeyID,
		Names: f.Names, NotBefore: Stamp(f.NotBefore), NotAfter: Stamp(f.NotAfter), Serial: f.Serial,
		FingerprintSha256: f.FingerprintSHA256, SpkiSha256: f.SPKISHA256, AriCertId: f.ARICertID, KeyAlgorithm: f.KeyAlgorithm,
		IssuerName: f.IssuerName,
	}
}

// Problem is why something did not go on.
type Problem struct {
	Reason      string       `bson:"reason"`
	Detail      string       `bson:"detail"`
	Type        string       `bson:"type"`
	Subproblems []Subproblem `bson:"subproblems"`
	Retrying    bool         `bson:"retrying"`
}

// Subproblem is a problem with one identifier.
type Subproblem struct {
	Identifier string `bson:"identifier"`
	Type       string `bson:"type"`
	Detail     string `bson:"detail"`
}

// ProblemOf reads a problem from the published language; nil for nil.
func ProblemOf(p *typesv1.Problem) *Problem {
	if p == nil {
		return nil
	}
	out := &Problem{Reason: p.GetReason(), Detail: p.GetDetail(), Type: p.GetType(), Retrying: p.GetRetrying()}
	for _, s := range p.GetSubproblems() {
		out.Subproblems = append(out.Subproblems, Subproblem{Identifier: s.GetIdentifier(), Type: s.GetType(), Detail: s.GetDetail()})
	}
	return out
}

// Message is the problem in the published language; nil for nil.
func (p *Problem) Message() *typesv1.Problem {
	if p == nil {
		return nil
	}
	out := &typesv1.Problem{Reason: p.Reason, Detail: p.Detail, Type: p.Type, Retrying: p.Retrying}
	for _, s := range p.Subproblems {
		out.Subproblems = append(out.Subproblems, &typesv1.Subproblem{Identifier: s.Identifier, Type: s.Type, Detail: s.Detail})
	}
	return out
}

// Stamp is t in the published language; the zero time is unset.
func Stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
