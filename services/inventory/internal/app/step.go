package app

import (
	"context"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// Step is the worker's: it makes one binding that is still to be made, or sends revocations that waited long enough. (What waits for an answer is
// told again by the worker itself.)
func (a *App) Step(ctx context.Context, doc Certificate) (worker.Result[domain.Certificate], error) {
	m := a.moment(ctx, doc.ID)
	next := func(c *domain.Certificate) domain.Outcome { return c.Release(m) }
	for _, p := range doc.Body.DeployTo {
		if doc.Body.Deleted() || p.NextAt.After(m.Now) {
			continue
		}
		binding := ""
		err := worker.Call(ctx, "inventory.ensure_binding", func(ctx context.Context) (err error) {
			binding, err = a.Bindings.EnsureBinding(ctx, doc.ID, p.TargetID, doc.Team, doc.Body.Owner)
			return err
		})
		if err != nil && ctx.Err() != nil { // nobody has answered: not a failure of the target
			return worker.Result[domain.Certificate]{}, err
		}
		if err != nil {
			a.Logger.WarnContext(ctx, "a binding cannot be made yet", "certificate_id", doc.ID, "target_id", p.TargetID, "error", err)
		}
		m.Now = a.Clock.Now()
		next = func(c *domain.Certificate) domain.Outcome {
			if err != nil {
				return c.BindingFailed(p.TargetID, err.Error(), m)
			}
			return c.BindingMade(p.TargetID, binding, m)
		}
		break
	}
	return worker.Result[domain.Certificate]{Apply: func(doc *Certificate) ([]outbox.Fact, error) {
		facts, changed := settle(doc, next(&doc.Body))
		if !changed {
			doc.WorkAt = doc.Body.WorkAt()
			return nil, outbox.ErrUnchanged
		}
		return facts, nil
	}}, nil
}
