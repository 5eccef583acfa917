// Package app is the use cases of renewals: what a fact heard, a look at the inventory, or the clock makes of the plans.
package app

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"reflect"

	"google.golang.org/grpc"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// Inventory is what renewals needs of the one door.
type Inventory interface {
	RequestVersion(ctx context.Context, in *inventoryv1.RequestVersionRequest, opts ...grpc.CallOption) (*inventoryv1.RequestVersionResponse, error)
	ListChanges(ctx context.Context, in *inventoryv1.ListChangesRequest, opts ...grpc.CallOption) (*inventoryv1.ListChangesResponse, error)
}

// Orders is what renewals needs of the only service that talks to CAs.
type Orders interface {
	GetRenewalInfo(ctx context.Context, in *ordersv1.GetRenewalInfoRequest, opts ...grpc.CallOption) (*ordersv1.GetRenewalInfoResponse, error)
}

// App holds what the use cases need.
type App struct {
	Plans     *outbox.Collection[domain.Plan]
	Inventory Inventory
	Orders    Orders
	Clock     clock.Clock
	Logger    *slog.Logger
	Policy    domain.Policy
	// Draw returns a random number in [0, 1); nil for the default.
	Draw func() float64
}

// Plan is a stored plan; its id is the certificate's.
type Plan = docstore.Doc[domain.Plan]

// Spec of the collection.
func Spec() docstore.Spec {
	return docstore.Spec{Name: "plans", Indexes: []docstore.Index{
		{Fields: []string{"owner"}}, {Fields: []string{"state"}}, {Fields: []string{"plan_due_at"}}, {Fields: []string{"dropped_at"}},
	}}
}

func (a *App) moment(certificate string) domain.Moment {
	m := domain.Moment{ID: certificate, Now: a.Clock.Now(), Policy: a.Policy, Draw: a.Draw}
	if m.Draw == nil {
		m.Draw = rand.Float64 //nolint:gosec // it spreads load and hides nothing
	}
	return m
}

// settle has the rules decide, derives when the worker is needed, and tells the plan when it differs from what was told last. Every write of a plan ends with it.
func settle(doc *Plan, before string, m domain.Moment, caused []domain.Fact) []outbox.Fact {
	p := &doc.Body
	if p.Dropped() {
		doc.Tombstone, doc.WorkAt = true, clock.Never
		outbox.Forget(&doc.Meta, func(string) bool { return true })
		return nil
	}
	p.Settle()
	doc.Tombstone, doc.WorkAt = false, p.WorkAt(m.Policy)
	var facts []outbox.Fact
	if p.Gist() != before {
		facts = append(facts, outbox.Keep(domain.PlanKey, p.Message(doc.ID)))
	}
	for _, f := range caused {
		facts = append(facts, outbox.Tell(f))
	}
	return facts
}

// change applies f to the plan of a certificate, which is made if there is none, and reports whether the plan was told by it. f says false to leave all as it is.
func (a *App) change(ctx context.Context, certificate, team string, f func(p *domain.Plan, m domain.Moment) ([]domain.Fact, bool)) (doc Plan, told bool, err error) {
	m := a.moment(certificate)
	for range 10 {
		doc, err = a.Plans.Change(ctx, certificate, func(doc *Plan) ([]outbox.Fact, error) {
			told = false // of a try that met another write
			before, gist := doc.Body, doc.Body.Gist()
			caused, ok := f(&doc.Body, m)
			if !ok {
				return nil, outbox.ErrUnchanged
			}
			facts := settle(doc, gist, m, caused)
			if reflect.DeepEqual(before, doc.Body) {
				return nil, outbox.ErrUnchanged
			}
			told = !doc.Tombstone && gist != doc.Body.Gist()
			return facts, nil
		})
		if err == nil || errs.KindOf(err) != errs.NotFound {
			return doc, told, err
		}
		doc = Plan{Meta: docstore.Meta{ID: certificate, Team: team}, Body: domain.New(m)}
		caused, ok := f(&doc.Body, m)
		if !ok {
			return doc, false, nil
		}
		err = a.Plans.Insert(ctx, &doc, settle(&doc, "", m, caused)...)
		if err == nil || errs.KindOf(err) != errs.AlreadyExists {
			return doc, true, err
		}
	}
	return doc, false, errs.New(errs.Conflict, "TOO_BUSY", "the plan of %s is being changed by too many at once", certificate)
}
