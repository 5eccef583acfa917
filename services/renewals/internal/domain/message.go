package domain

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
)

// PlanKey is the natural key of the present plan: the newest answer to whoever asks what comes next.
const PlanKey = "plan"

// Message is the plan as it is told: renewal.held or renewal.planned.
func (p *Plan) Message(certificate string) proto.Message {
	if p.State == Held {
		return &renewaleventsv1.Held{
			CertificateId: certificate, VersionId: p.Version.ID, IntentNumber: p.Ended(), Reason: p.Explanation, ReviewAt: timestampOf(p.DueAt), Owner: p.Owner,
		}
	}
	return &renewaleventsv1.Planned{
		CertificateId: certificate, VersionId: p.Version.ID, IntentNumber: p.Ended(), DueAt: timestampOf(p.DueAt), Basis: string(p.Basis), Explanation: p.Explanation,
	}
}

// Gist is equal for two plans that would be told in the same words.
func (p *Plan) Gist() string {
	return fmt.Sprintf("%s|%d|%s|%s|%s|%d|%s", p.State, p.DueAt.UnixMilli(), p.Basis, p.Explanation, p.Version.ID, p.Ended(), p.Owner)
}

func (p *Plan) due(basis Basis, m Moment) Fact {
	return &renewaleventsv1.Due{CertificateId: m.ID, VersionId: p.Version.ID, OrderId: p.Intent.OrderID, Basis: string(basis)}
}
