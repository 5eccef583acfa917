package app

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// BudgetSpec is the collection of the ledger, one document a bucket.
func BudgetSpec() docstore.Spec {
	return docstore.Spec{Name: "budgets", Indexes: []docstore.Index{
		{Fields: []string{"issuer_id", "idle_at"}}, {Fields: []string{"issuer_id", "kind", "idle_at"}}, {Fields: []string{"issuer_id", "names"}, Array: "names"}, {Fields: []string{"idle_at"}},
	}}
}

// bucketID is the bucket of a claim on an issuer's account.
func bucketID(issuerID string, kind domain.LimitKind, scope string) string {
	return id.Derive("bkt", AccountID(issuerID)+"/"+string(kind)+"/"+scope)
}

// ledgerLocks keep the steps of one process from writing the same bucket at once: each would have to try again for each that came first. They are no
// guard; the revision is. A bucket has one of them by its id.
type ledgerLocks [64]sync.Mutex

func (l *ledgerLocks) of(bucket string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(bucket))
	return &l[h.Sum32()%uint32(len(l))]
}

// admit reserves a token for the next attempt of an order in every bucket that it needs, or says which one has none and gives the others back. Each
// bucket is one write. What a crash leaves is found again by the next try of the same attempt, or counts as spent when it runs out.
func (a *App) admit(ctx context.Context, o *domain.Order, asked time.Time, issuer docstore.Doc[domain.Issuer]) (domain.Reservation, *domain.Refusal, error) {
	now := a.Clock.Now()
	var reserved domain.Reservation
	claims := o.Claims(issuer.Body.EffectiveLimits(), now)
	bucket := func(c domain.Claim) string { return bucketID(issuer.ID, c.Limit.Kind, c.Scope) }
	slices.SortFunc(claims, func(x, y domain.Claim) int { // what takes nothing first, then the same order for everybody
		if x.Look != y.Look {
			return map[bool]int{true: -1, false: 1}[x.Look]
		}
		return cmp.Compare(bucket(x), bucket(y))
	})
	for _, c := range claims {
		refusal, err := a.claim(ctx, o, c, asked, now, issuer)
		if err != nil {
			return reserved, nil, err
		}
		if refusal != nil {
			a.settleTokens(ctx, o.ID, reserved, issuer.Body, func(b *domain.Bucket, l domain.Limit) bool {
				return b.Yield(l, o.ID, o.NextAttempt(), o.Urgency(asked), refusal.Until, now)
			})
			a.Metrics.refused(ctx, issuer.ID, c.Limit.Kind)
			return domain.Reservation{}, refusal, nil
		}
		if !c.Look {
			reserved.Buckets, reserved.Until = append(reserved.Buckets, bucket(c)), now.Add(domain.HoldFor)
		}
	}
	return reserved, nil, nil
}

// claim asks one bucket.
func (a *App) claim(ctx context.Context, o *domain.Order, c domain.Claim, asked, now time.Time, issuer docstore.Doc[domain.Issuer]) (*domain.Refusal, error) {
	var refusal *domain.Refusal
	refuse := func(b domain.Bucket, until time.Time, before int) {
		refusal = &domain.Refusal{IssuerID: issuer.ID, Claim: c, Until: until, Before: before, Closed: b.ClosedUntil.After(now)}
	}
	if c.Look {
		doc, err := a.Budgets.Get(ctx, bucketID(issuer.ID, c.Limit.Kind, c.Scope))
		if errs.KindOf(err) == errs.NotFound {
			return nil, nil //nolint:nilnil // no bucket is a full one
		}
		if until := doc.Body.NextAt(c.Limit, now); err == nil && !until.IsZero() {
			refuse(doc.Body, until, 0)
		}
		return refusal, err
	}
	err := a.changeBucket(ctx, issuer, c, func(b *domain.Bucket) bool {
		refusal = nil
		ok, turn, before := b.Reserve(c.Limit, o.ID, o.NextAttempt(), o.Urgency(asked), now)
		if !ok {
			refuse(*b, turn, before)
		}
		return ok || b.Keeps(o.ID)
	})
	return refusal, err
}

// changeBucket writes what f makes of a claim's bucket, which is made when there is none, unless f says that it need not be written.
func (a *App) changeBucket(ctx context.Context, issuer docstore.Doc[domain.Issuer], c domain.Claim, f func(b *domain.Bucket) bool) error {
	bucket := bucketID(issuer.ID, c.Limit.Kind, c.Scope)
	lock := a.ledger.of(bucket)
	lock.Lock()
	defer lock.Unlock()
	for {
		_, err := a.Budgets.Change(ctx, bucket, func(doc *docstore.Doc[domain.Bucket]) ([]outbox.Fact, error) {
			doc.Body = doc.Body.Clone()
			if !f(&doc.Body) {
				return nil, outbox.ErrUnchanged
			}
			return nil, nil
		})
		if errs.KindOf(err) != errs.NotFound {
			return err
		}
		doc := docstore.Doc[domain.Bucket]{
			Meta: docstore.Meta{ID: bucket, Team: issuer.Team}, Body: domain.Bucket{IssuerID: issuer.ID, Kind: c.Limit.Kind, Scope: c.Scope, Names: c.Names},
		}
		if !f(&doc.Body) {
			return nil
		}
		if err = a.Budgets.Insert(ctx, &doc); errs.KindOf(err) != errs.AlreadyExists {
			return err
		}
	}
}

// answered tells the ledger that the CA answered newOrder of an attempt: sent, or certainly not counted.
func (a *App) answered(ctx context.Context, orderID string, at *domain.Attempt, issuer domain.Issuer, sent bool) {
	a.settleTokens(ctx, orderID, at.Reservation, issuer, func(b *domain.Bucket, l domain.Limit) bool {
		if sent {
			return b.Sent(l, orderID, at.Number, a.Clock.Now())
		}
		return b.Release(l, orderID, at.Number, a.Clock.Now())
	})
}

// settleTokens ends a reservation by f, which reports whether the bucket had it. What cannot be written runs out and counts as spent.
func (a *App) settleTokens(ctx context.Context, orderID string, r domain.Reservation, issuer domain.Issuer, f func(b *domain.Bucket, l domain.Limit) bool) {
	for _, bucket := range r.Buckets {
		lock := a.ledger.of(bucket)
		lock.Lock()
		_, err := a.Budgets.Change(ctx, bucket, func(doc *docstore.Doc[domain.Bucket]) ([]outbox.Fact, error) {
			l, limited := issuer.LimitOf(doc.Body.Kind)
			doc.Body = doc.Body.Clone()
			if !limited || !f(&doc.Body, l) {
				return nil, outbox.ErrUnchanged
			}
			return nil, nil
		})
		lock.Unlock()
		if err != nil && errs.KindOf(err) != errs.NotFound {
			a.Logger.WarnContext(ctx, "a reservation is left to run out", "bucket", bucket, "order", orderID, "error", err)
		}
	}
}

// limited empties the buckets that a CA's 429 on newOrder speaks of.
func (a *App) limited(ctx context.Context, o *domain.Order, f *domain.Failure, issuer docstore.Doc[domain.Issuer]) error {
	if f.Problem.Reason != "RATE_LIMITED" {
		return nil
	}
	now := a.Clock.Now()
	claims, until := o.Concerned(issuer.Body.EffectiveLimits(), f, now)
	for _, c := range claims {
		if err := a.changeBucket(ctx, issuer, c, func(b *domain.Bucket) bool { b.Close(c.Limit, until, now); return true }); err != nil {
			return err
		}
	}
	return nil
}

// countFailures spends for authorizations that the CA now calls invalid and that were open here. It comes before the order's own write: after a crash in
// between they are counted twice.
func (a *App) countFailures(ctx context.Context, at *domain.Attempt, zs []domain.Authorization, issuer docstore.Doc[domain.Issuer]) error {
	l, ok := issuer.Body.LimitOf(domain.FailedAuthorizations)
	if !ok {
		return nil
	}
	var failed []string
	for _, z := range at.Authorizations {
		i := slices.IndexFunc(zs, func(c domain.Authorization) bool { return c.URL == z.URL })
		if i >= 0 && z.State.Open() && zs[i].State == domain.AuthzInvalid {
			failed = append(failed, domain.Identifier(z.Identifier))
		}
	}
	slices.Sort(failed)
	for _, n := range slices.Compact(failed) {
		c := domain.Claim{Limit: l, Scope: n, Names: []string{n}}
		if err := a.changeBucket(ctx, issuer, c, func(b *domain.Bucket) bool { b.Spend(l, a.Clock.Now()); return true }); err != nil {
			return err
		}
	}
	return nil
}

// SweepBudgets removes the buckets that have been full for an hour.
func (a *App) SweepBudgets(ctx context.Context) error {
	return a.Budgets.RemoveAll(ctx, docstore.Cond{Field: "idle_at", Op: docstore.Lte, Value: a.Clock.Now().Add(-time.Hour)})
}

// Metrics of the ledger; the zero value counts nothing.
type Metrics struct {
	refusals metric.Int64Counter
	left     metric.Int64Gauge
}

// NewMetrics makes them.
func NewMetrics(m metric.Meter) (out Metrics, err error) {
	var e error
	out.refusals, err = m.Int64Counter("certwright.orders.budget_refused", metric.WithDescription("Orders that had to wait because a CA's limit is used up."))
	out.left, e = m.Int64Gauge("certwright.orders.budget_left", metric.WithDescription("Tokens left in the emptiest bucket of an issuer's limit."))
	return out, errors.Join(err, e)
}

func (m Metrics) of(issuerID string, kind domain.LimitKind) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("issuer", issuerID), attribute.String("kind", string(kind)))
}

func (m Metrics) refused(ctx context.Context, issuerID string, kind domain.LimitKind) {
	if m.refusals != nil {
		m.refusals.Add(ctx, 1, m.of(issuerID, kind))
	}
}

// ReportBudgets shows for each limit what is left in its emptiest bucket.
func (a *App) ReportBudgets(ctx context.Context) error {
	if a.Metrics.left == nil {
		return nil
	}
	for after := ""; ; {
		page, err := a.Issuers.Find(ctx, docstore.Query{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		for _, i := range page.Docs {
			if i.Tombstone {
				continue
			}
			for _, l := range i.Body.EffectiveLimits() {
				left, err := a.leastLeft(ctx, i.ID, l)
				if err != nil {
					return err
				}
				a.Metrics.left.Record(ctx, left, a.Metrics.of(i.ID, l.Kind))
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// leastLooked is how many buckets, those that take longest to be full, are looked at for the emptiest.
const leastLooked = 20

func (a *App) leastLeft(ctx context.Context, issuerID string, l domain.Limit) (int64, error) {
	page, err := a.Budgets.Find(ctx, docstore.Query{Where: budgetsOf(issuerID, l.Kind), Desc: true, Limit: leastLooked})
	left := l.Capacity
	for _, d := range page.Docs {
		left = min(left, d.Body.Left(l, a.Clock.Now()))
	}
	return left, err
}

func budgetsOf(issuerID string, kind domain.LimitKind) []docstore.Cond {
	where := []docstore.Cond{{Field: "issuer_id", Op: docstore.Eq, Value: issuerID}}
	if kind != "" {
		where = append(where, docstore.Cond{Field: "kind", Op: docstore.Eq, Value: string(kind)})
	}
	return where
}

// reserved reports whether newOrder may still be sent under the attempt's reservation, and be counted by the CA before that runs out.
func (a *App) reserved(at *domain.Attempt) bool {
	until := at.Reservation.Until
	return until.IsZero() || !a.Clock.Now().Add(domain.SendMargin).After(until)
}

// refusedBy writes that the ledger does not admit the order now, with what the step has found out before.
func (a *App) refusedBy(r domain.Refusal, before func(o *domain.Order)) result {
	return a.then(func(o *domain.Order) ([]domain.Fact, error) {
		before(o)
		if o.Attempt() != nil {
			return nil, nil
		}
		return o.Refused(r, a.Clock.Now()), nil
	})
}
