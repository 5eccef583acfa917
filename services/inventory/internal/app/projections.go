package app

import (
	"context"

	"github.com/certwright/certwright/services/inventory/internal/domain"
)

// RenewalTold projects what renewals planned or held, and hears the answer to an intent's end.
func (a *App) RenewalTold(ctx context.Context, certificate string, r domain.Renewal, intentNumber int64) error {
	m := a.moment(ctx, certificate)
	return a.heard(ctx, m, func(doc *Certificate) domain.Outcome { return doc.Body.Planned(r, intentNumber) })
}

// DeploymentTold projects the news of a deployment; reason and detail are empty unless something went wrong.
func (a *App) DeploymentTold(ctx context.Context, certificate string, b domain.Binding, reason, detail string) error {
	m := a.moment(ctx, certificate)
	return a.heard(ctx, m, func(doc *Certificate) domain.Outcome { return doc.Body.Deployed(b, reason, detail, m) })
}

// RevocationEnded records the result of a revocation; problem is nil when it is done.
func (a *App) RevocationEnded(ctx context.Context, certificate, version string, already bool, problem *domain.Problem) error {
	m := a.moment(ctx, certificate)
	return a.heard(ctx, m, func(doc *Certificate) domain.Outcome { return doc.Body.RevocationEnded(version, already, problem, m) })
}
