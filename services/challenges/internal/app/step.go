package app

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

type result = worker.Result[domain.Challenge]

// Step does the next thing for a challenge.
func (a *App) Step(ctx context.Context, doc Doc) (result, error) {
	action, _, _ := doc.Body.Next(a.Clock.Now())
	switch action {
	case domain.Solve:
		return a.solve(ctx, doc)
	case domain.Look:
		return a.look(ctx, doc)
	case domain.Ask:
		return a.apply(func(c *domain.Challenge) domain.Effect { return c.Remind(doc.ID, a.Clock.Now()) }), nil
	case domain.Expiry:
		r := a.apply(func(c *domain.Challenge) domain.Effect { return c.Expire(doc.ID, a.Clock.Now()) })
		a.count(ctx, domain.Challenge{Type: doc.Body.Type, Solver: doc.Body.Solver, Outcome: domain.Expired})
		return r, nil
	case domain.Wait:
	}
	return a.apply(func(*domain.Challenge) domain.Effect { return domain.Effect{} }), nil
}

// solve chooses who answers. It asks the DNS and the dns service only when the choice depends on them.
func (a *App) solve(ctx context.Context, doc Doc) (result, error) {
	in, _, err := a.routed(ctx, doc.Team, doc.Body.Input(a.Responders))
	if err != nil {
		return result{}, err
	}
	if domain.NeedsDNS(in) {
		err := worker.Call(ctx, "challenges.resolve", func(ctx context.Context) (err error) {
			in, err = a.askDNS(ctx, doc.Team, in)
			return err
		})
		if err != nil {
			return result{}, err
		}
	}
	found := domain.Choose(in)
	return a.apply(func(c *domain.Challenge) domain.Effect { return c.Place(doc.ID, found, a.Clock.Now()) }), nil
}

// look sees whether the answer is where the CA will look.
func (a *App) look(ctx context.Context, doc Doc) (result, error) {
	c := doc.Body
	if c.Check.How == domain.CheckWait && c.Type == domain.DNS01 {
		if c.Solver == domain.ByDNS {
			return a.apply(func(now *domain.Challenge) domain.Effect { return now.Waited(doc.ID, a.Clock.Now()) }), nil
		}
		return a.looked(doc, domain.Problem{}, []string{"nobody was asked: the route's check is wait, so the person's word counts"}), nil
	}
	reason, what, see := domain.ReasonNotVisible, "challenges.look_http", func(ctx context.Context) (Sight, error) {
		return a.Eyes.HTTP(ctx, c.Identifier, c.Token, c.Value)
	}
	switch {
	case c.Solver == domain.ByResponder:
		what, reason = "challenges.self_check", domain.ReasonNotAnswering
		see = func(ctx context.Context) (Sight, error) {
			return a.Eyes.Responder(ctx, c.Type, c.Identifier, c.Token, c.Value)
		}
	case c.Type == domain.DNS01:
		what = "challenges.look_dns"
		see = func(ctx context.Context) (Sight, error) { return a.Eyes.TXT(ctx, c.Location, c.Value, c.Check) }
	case c.Type == domain.TLSALPN01:
		what = "challenges.look_tls"
		see = func(ctx context.Context) (Sight, error) { return a.Eyes.TLS(ctx, c.Identifier, c.Value) }
	}
	var sight Sight
	err := worker.Call(ctx, what, func(ctx context.Context) (err error) {
		sight, err = see(ctx)
		return err
	})
	if err != nil {
		return result{}, err
	}
	var wrong domain.Problem
	if sight.Wrong != "" {
		wrong = domain.Problem{Reason: reason, Detail: sight.Wrong}
	}
	return a.looked(doc, wrong, sight.Found), nil
}

func (a *App) looked(was Doc, wrong domain.Problem, found []string) result {
	return a.apply(func(c *domain.Challenge) domain.Effect {
		return c.Looked(was.ID, was.Body.ChecksWanted, wrong, found, a.Clock.Now())
	})
}

func (a *App) apply(f func(*domain.Challenge) domain.Effect) result {
	return result{Apply: func(doc *Doc) ([]outbox.Fact, error) { return a.settle(doc, f(&doc.Body)), nil }}
}

// count counts a closed challenge.
func (a *App) count(ctx context.Context, c domain.Challenge) {
	if a.Closed != nil && c.Type != "" {
		a.Closed.Add(ctx, 1, metric.WithAttributes(
			attribute.String("type", c.Type), attribute.String("solver", string(c.Solver)), attribute.String("outcome", c.Outcome)))
	}
}
