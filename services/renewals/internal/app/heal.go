package app

import (
	"cmp"
	"context"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/heal"
)

// ariRetry is when ARI is read again after orders could not be asked.
const ariRetry = 15 * time.Minute

// ReadInventory reads what changed at the inventory since the cursor and gives every certificate its plan, whatever the bus lost: a version without a plan gets one, an outcome
// that was not heard is taken, a deleted certificate's plan is dropped, and a plan that did not reach the inventory is told again.
func (a *App) ReadInventory(ctx context.Context, cursor string) (heal.Page, error) {
	res, err := a.Inventory.ListChanges(ctx, &inventoryv1.ListChangesRequest{AfterCursor: cursor, PageSize: 500})
	if err != nil {
		return heal.Page{}, err
	}
	for _, c := range res.GetChanges() {
		if err := a.observe(ctx, c, res.GetRestarted()); err != nil {
			return heal.Page{}, err
		}
	}
	return heal.Page{Next: res.GetNextCursor(), More: res.GetMore(), Restarted: res.GetRestarted()}, nil
}

// observe takes one certificate. restarted: the inventory's history is another one, so its revisions do not compare with what is known.
func (a *App) observe(ctx context.Context, c *inventoryv1.CertificateChange, restarted bool) error {
	crt := c.GetCertificate()
	team := cmp.Or(crt.GetTeam(), authz.DefaultTeam)
	doc, told, err := a.change(ctx, crt.GetId(), team, func(p *domain.Plan, m domain.Moment) ([]domain.Fact, bool) {
		stale := c.GetRevision() < p.Source.Revision && !restarted
		if stale || c.GetDeleted() && p.Dropped() {
			return nil, false
		}
		if c.GetDeleted() {
			p.Source.Revision = c.GetRevision()
			p.Drop(m)
			return nil, true
		}
		if p.Dropped() {
			p.Revive()
		}
		return p.Observe(seen(crt), m), true
	})
	if err != nil || told || doc.Tombstone || doc.ID == "" {
		return err
	}
	// An answer that was lost is told again; just now it may be on its way.
	if !known(crt.GetRenewal(), &doc.Body) && a.Clock.Now().Sub(doc.ChangedAt) > time.Minute {
		_, err = a.Plans.TellAgain(ctx, doc, domain.PlanKey)
	}
	return err
}

func seen(c *inventoryv1.Certificate) domain.Seen {
	i := c.GetIntent()
	v := c.GetCurrentVersion()
	return domain.Seen{
		Version: version(v.GetFacts()), Revoked: v.GetState() == "revoked", Owner: c.GetOwner(),
		Intent:  domain.Intent{Number: i.GetNumber(), OrderID: i.GetOrderId(), Cause: i.GetCause(), Replaces: i.GetReplacesVersionId()},
		Outcome: i.GetOutcome(), Problem: problem(i.GetProblem()),
	}
}

// known reports whether the inventory shows the plan as it is.
func known(r *inventoryv1.RenewalStatus, p *domain.Plan) bool {
	state := "planned"
	if p.State == domain.Held {
		state = "held"
	}
	return r.GetState() == state && r.GetDueAt().AsTime().Equal(p.DueAt)
}
