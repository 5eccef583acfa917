package app

import (
	"context"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/clock"
)

// Heard is where a fact comes from.
type Heard struct {
	Source domain.Source
	Team   string
}

// hear applies a fact of a certificate that owner answers for. If somebody waits for the answer and there is no new one, the present one is told again.
func (a *App) hear(ctx context.Context, h Heard, certificate, owner string, answer bool, f func(p *domain.Plan, m domain.Moment) []domain.Fact) error {
	doc, told, err := a.change(ctx, certificate, h.Team, func(p *domain.Plan, m domain.Moment) ([]domain.Fact, bool) {
		if p.Dropped() {
			return nil, false
		}
		fresh, past := p.Hear(h.Source)
		if past {
			return nil, false
		}
		if fresh {
			p.Own(owner)
		}
		return f(p, m), true
	})
	if err != nil || told || !answer {
		return err
	}
	_, err = a.Plans.TellAgain(ctx, doc, domain.PlanKey)
	return err
}

// Requested takes that an intent was opened: from a certificate's creation on there is a plan.
func (a *App) Requested(ctx context.Context, h Heard, r *certev.Requested) error {
	return a.hear(ctx, h, r.GetCertificateId(), r.GetOwner(), true, func(p *domain.Plan, m domain.Moment) []domain.Fact {
		p.Take(version(r.GetReplaces()), false, m)
		return p.Opened(domain.Intent{
			Number: r.GetIntentNumber(), OrderID: r.GetOrderId(), Cause: r.GetCause(), Replaces: r.GetReplaces().GetVersionId(),
		}, m)
	})
}

// IntentClosed takes an intent's outcome, with the version that it brought, and is answered with the plan that follows from it.
func (a *App) IntentClosed(ctx context.Context, h Heard, c *certev.IntentClosed) error {
	return a.hear(ctx, h, c.GetCertificateId(), c.GetOwner(), true, func(p *domain.Plan, m domain.Moment) []domain.Fact {
		p.Take(version(c.GetCurrent()), false, m)
		p.Closed(c.GetIntentNumber(), c.GetOutcome(), problem(c.GetProblem()), c.GetNextIntentFollows(), c.GetCancelledBy(), m)
		return nil
	})
}

// VersionRevoked takes that the CA has revoked a version; the current one is due at once.
func (a *App) VersionRevoked(ctx context.Context, h Heard, r *certev.VersionRevoked) error {
	if !r.GetCurrent() {
		return nil
	}
	return a.hear(ctx, h, r.GetCertificateId(), r.GetOwner(), false, func(p *domain.Plan, m domain.Moment) []domain.Fact {
		p.Take(version(r.GetVersion()), false, m)
		p.Revoked(r.GetVersion().GetVersionId(), m)
		return nil
	})
}

// Deleted drops the plan. A deletion that is heard of before everything else leaves a tombstone, so that nothing is planned afterwards.
func (a *App) Deleted(ctx context.Context, h Heard, d *certev.Deleted) error {
	return a.hear(ctx, h, d.GetCertificateId(), d.GetOwner(), false, func(p *domain.Plan, m domain.Moment) []domain.Fact {
		p.Drop(m)
		return nil
	})
}

func version(f *typesv1.VersionFacts) domain.Version {
	if f == nil {
		return domain.Version{}
	}
	return domain.Version{
		ID: f.GetVersionId(), Number: f.GetNumber(), Names: f.GetNames(), IssuerID: f.GetIssuerId(), ARICertID: f.GetAriCertId(),
		NotBefore: clock.Normal(f.GetNotBefore().AsTime()), NotAfter: clock.Normal(f.GetNotAfter().AsTime()),
	}
}

func problem(p *typesv1.Problem) *domain.Problem {
	if p == nil {
		return nil
	}
	return &domain.Problem{Reason: p.GetReason(), Detail: p.GetDetail(), Retrying: p.GetRetrying()}
}
