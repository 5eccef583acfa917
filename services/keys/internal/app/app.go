// Package app is what the service keys does: a file for each use case. Keys are in the clear here only between the opening of the seal and the
// end of the call, and never on the bus, in a log or in an error.
package app

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
)

// Inventory answers what a version is right now.
type Inventory interface {
	GetVersionStatus(ctx context.Context, in *inventoryv1.GetVersionStatusRequest, opts ...grpc.CallOption) (*inventoryv1.VersionStatus, error)
}

// Orders tells which orders changed.
type Orders interface {
	ListChanges(ctx context.Context, in *ordersv1.ListChangesRequest, opts ...grpc.CallOption) (*ordersv1.ListChangesResponse, error)
}

// App is the service's use cases.
type App struct {
	Keys      *outbox.Collection[domain.Key]
	Sealer    *seal.Sealer
	Inventory Inventory
	Orders    Orders
	Clock     clock.Clock
	Times     domain.Times
	// KeepPrevious is how many keys before the newest are kept for rollbacks.
	KeepPrevious int
}

// Spec declares the collection of keys.
func Spec() docstore.Spec {
	return docstore.Spec{Name: "keys", Indexes: []docstore.Index{
		{Fields: []string{"certificate_id", "live"}}, {Fields: []string{"certificate_id"}}, {Fields: []string{"state"}}, {Fields: []string{"team"}}, {Fields: []string{"forget_at"}},
	}}
}

// KeyID is the id of the key of an order.
func KeyID(orderID string) string { return id.Derive("key", orderID) }

type doc = docstore.Doc[domain.Key]

// change applies f to a key that exists; f reports whether anything changed. It is the one place where the due time is derived.
func (a *App) change(ctx context.Context, keyID string, f func(k *domain.Key, now time.Time) ([]proto.Message, bool)) (doc, error) {
	return a.Keys.Change(ctx, keyID, func(d *doc) ([]outbox.Fact, error) {
		events, changed := f(&d.Body, a.Clock.Now())
		if !changed {
			return nil, outbox.ErrUnchanged
		}
		return stored(d, events), nil
	})
}

// stored sets what follows from the key's state and makes facts of its events.
func stored(d *doc, events []proto.Message) []outbox.Fact {
	d.WorkAt = d.Body.Due()
	facts := make([]outbox.Fact, len(events))
	for i, e := range events {
		facts[i] = outbox.Tell(e)
	}
	return facts
}

// open unseals a key. The caller clears the result.
func (a *App) open(ctx context.Context, d doc) ([]byte, error) {
	return a.Sealer.Open(ctx, seal.Sealed(d.Body.Sealed), []byte(d.ID))
}

// get returns a key, or KEY_NOT_FOUND, also when it is of a team that is not let in.
func (a *App) get(ctx context.Context, keyID string, inTeam func(team string) bool) (doc, error) {
	d, err := a.Keys.Get(ctx, keyID)
	if errs.KindOf(err) == errs.NotFound || err == nil && !inTeam(d.Team) {
		return doc{}, errs.New(errs.NotFound, "KEY_NOT_FOUND", "there is no key %q", keyID)
	}
	return d, err
}

// anyTeam lets a sibling service in, which speaks for all.
func anyTeam(string) bool { return true }
