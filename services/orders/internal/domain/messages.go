package domain

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	orderev "github.com/certwright/certwright/api/certwright/events/order/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
)

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func (o *Order) required(attempt int64, z Authorization) *orderev.AuthorizationRequired {
	m := &orderev.AuthorizationRequired{
		OrderId: o.ID, CertificateId: o.CertificateID, Attempt: attempt, Authorization: z.Number, Identifier: z.Identifier, Wildcard: z.Wildcard,
		Challenge: &typesv1.ChallengeSpec{Type: o.Spec.Challenge, Manual: o.Spec.Manual}, Expires: stamp(z.ExpiresAt), Owner: o.Owner,
	}
	for _, c := range z.Offered {
		m.Offered = append(m.Offered, &orderev.OfferedChallenge{Type: c.Type, Token: c.Token, KeyAuthorization: c.KeyAuthorization})
	}
	return m
}

// SpecFrom reads a spec as it travels.
func SpecFrom(m *typesv1.CertificateSpec) Spec {
	s := Spec{
		IssuerID: m.GetIssuer(), Names: m.GetNames(), KeyAlgorithm: m.GetKeyAlgorithm(), Profile: m.GetProfile(),
		Challenge: m.GetChallenge().GetType(), Manual: m.GetChallenge().GetManual(),
	}
	if m.GetNotAfter() != nil {
		s.NotAfter = m.GetNotAfter().AsTime()
	}
	return s
}

// Message returns the spec as it travels.
func (s Spec) Message() *typesv1.CertificateSpec {
	return &typesv1.CertificateSpec{
		Issuer: s.IssuerID, Names: s.Names, KeyAlgorithm: s.KeyAlgorithm, Profile: s.Profile,
		Challenge: &typesv1.ChallengeSpec{Type: s.Challenge, Manual: s.Manual}, NotAfter: stamp(s.NotAfter),
	}
}

// FromRequested makes the order that certificate.requested asks for.
func FromRequested(m *certev.Requested, now time.Time) Order {
	var replaced *Replaced
	if v := m.GetReplaces(); v.GetVersionId() != "" {
		replaced = &Replaced{VersionID: v.GetVersionId(), IssuerID: v.GetIssuerId(), ARICertID: v.GetAriCertId(), NotAfter: v.GetNotAfter().AsTime(), Names: v.GetNames()}
		if v.GetNotBefore() != nil {
			replaced.NotBefore = v.GetNotBefore().AsTime()
		}
	}
	return New(m.GetOrderId(), m.GetCertificateId(), m.GetIntentNumber(), m.GetSpecGeneration(), SpecFrom(m.GetSpec()), replaced, m.GetCause(), m.GetOwner(), now)
}
