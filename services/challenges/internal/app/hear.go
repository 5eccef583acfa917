package app

import (
	"cmp"
	"context"
	"time"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// keepClosed is how long closed challenges and marks of closed orders are kept: as long as the bus keeps facts.
const keepClosed = 7 * 24 * time.Hour

// defaultTeam is authz.DefaultTeam; that package knows the network, use cases do not.
const defaultTeam = "default"

// AuthorizationRequired hears that control of a name has to be proven. Told again, it gives the present answer again.
func (a *App) AuthorizationRequired(ctx context.Context, team string, in domain.Challenge) error {
	c, err := domain.New(in, a.Clock.Now())
	if err != nil {
		return err
	}
	id := domain.ID(c.OrderID, c.Attempt, c.Authorization)
	doc := Doc{Meta: docstore.Meta{ID: id, Team: cmp.Or(team, defaultTeam)}, Body: c}
	effect, err := a.choose(ctx, &doc)
	if err != nil {
		return err
	}
	facts := a.settle(&doc, effect)
	err = a.Challenges.Insert(ctx, &doc, facts...)
	if errs.KindOf(err) == errs.AlreadyExists {
		return a.hear(ctx, id, func(c *domain.Challenge) domain.Effect { return c.Required() })
	}
	if err != nil {
		return err
	}
	// The order's end may have been heard first. It marks and then looks for challenges; this inserts and then looks for the mark, so
	// that one of the two sees the other.
	over, err := a.Orders.Get(ctx, c.OrderID)
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return a.close(ctx, id, over.Body.Outcome)
}

// choose picks who answers where nobody outside has to be asked for it; else the worker will.
func (a *App) choose(ctx context.Context, doc *Doc) (domain.Effect, error) {
	in, _, err := a.routed(ctx, doc.Team, doc.Body.Input(a.Responders))
	if err != nil || domain.NeedsDNS(in) {
		return domain.Effect{}, err
	}
	return doc.Body.Place(doc.ID, domain.Choose(in), a.Clock.Now()), nil
}

// AuthorizationClosed hears that the CA has decided, or that the attempt ended before it did.
func (a *App) AuthorizationClosed(ctx context.Context, team, order string, attempt, authorization int64, outcome string) error {
	id := domain.ID(order, attempt, authorization)
	err := a.close(ctx, id, outcome)
	if errs.KindOf(err) != errs.NotFound {
		return err
	}
	doc := Doc{
		Meta: docstore.Meta{ID: id, Team: cmp.Or(team, defaultTeam), Tombstone: true, WorkAt: clock.Never},
		Body: domain.NewClosed(order, attempt, authorization, outcome),
	}
	err = a.Challenges.Insert(ctx, &doc)
	if errs.KindOf(err) == errs.AlreadyExists { // it was heard of in between
		return a.close(ctx, id, outcome)
	}
	return err
}

// OrderClosed hears that an order is over: all its challenges are. An issued order whose challenges are closed one by one already needs no mark:
// should one more be heard of late, its answer is told to the order, which says that it is closed.
func (a *App) OrderClosed(ctx context.Context, team, order, outcome string) error {
	if order == "" {
		return errs.New(errs.Invalid, "EVENT_MALFORMED", "the end of an order names no order")
	}
	if outcome == domain.Valid {
		if done, err := a.allClosed(ctx, order); done || err != nil {
			return err
		}
	}
	mark := docstore.Doc[ClosedOrder]{
		Meta: docstore.Meta{ID: order, Team: cmp.Or(team, defaultTeam), WorkAt: a.Clock.Now().Add(keepClosed)}, Body: ClosedOrder{Outcome: outcome},
	}
	if err := a.Orders.Insert(ctx, &mark); err != nil && errs.KindOf(err) != errs.AlreadyExists {
		return err
	}
	for after := ""; ; {
		page, err := a.ofOrder(ctx, order, after)
		if err != nil {
			return err
		}
		for _, d := range page.Docs {
			if err := a.close(ctx, d.ID, outcome); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

func (a *App) ofOrder(ctx context.Context, order, after string) (docstore.Page[domain.Challenge], error) {
	return a.Challenges.Find(ctx, docstore.Query{
		Where: []docstore.Cond{{Field: "order_id", Op: docstore.Eq, Value: order}}, Limit: 1000, After: after,
	})
}

// allClosed reports whether challenges of the order are known and every one is closed; false as well when there are very many.
func (a *App) allClosed(ctx context.Context, order string) (bool, error) {
	page, err := a.ofOrder(ctx, order, "")
	if err != nil || page.Next != "" || len(page.Docs) == 0 {
		return false, err
	}
	for _, d := range page.Docs {
		if !d.Body.Closed() {
			return false, nil
		}
	}
	return true, nil
}

// RecordPresented hears that a TXT value is in the zone.
func (a *App) RecordPresented(ctx context.Context, id, value string) error {
	return a.hearDNS(ctx, id, func(c *domain.Challenge) domain.Effect { return c.RecordPresented(id, value) })
}

// RecordFailed hears that a TXT value cannot be written.
func (a *App) RecordFailed(ctx context.Context, id, value string, p domain.Problem) error {
	return a.hearDNS(ctx, id, func(c *domain.Challenge) domain.Effect { return c.RecordFailed(id, value, p) })
}

// RecordRemoved hears that a TXT value is gone.
func (a *App) RecordRemoved(ctx context.Context, id, value string) error {
	return a.hearDNS(ctx, id, func(c *domain.Challenge) domain.Effect { return c.RecordRemoved(value) })
}

// hearDNS ignores answers about challenges that are not known any more.
func (a *App) hearDNS(ctx context.Context, id string, f func(*domain.Challenge) domain.Effect) error {
	err := a.hear(ctx, id, f)
	if errs.KindOf(err) == errs.NotFound {
		a.Logger.InfoContext(ctx, "an answer about a challenge that is not known any more", "challenge", id)
		return nil
	}
	return err
}

func (a *App) close(ctx context.Context, id, outcome string) error {
	return a.hear(ctx, id, func(c *domain.Challenge) domain.Effect { return c.Close(id, outcome) })
}

// hear applies a fact to a challenge, and tells the present answer again when the fact asks for it.
func (a *App) hear(ctx context.Context, id string, f func(*domain.Challenge) domain.Effect) error {
	var e domain.Effect
	var closed bool
	doc, err := a.Challenges.Change(ctx, id, func(doc *Doc) ([]outbox.Fact, error) {
		before := doc.Body.Closed()
		e = f(&doc.Body)
		closed = !before && doc.Body.Closed()
		if !e.Changed {
			return nil, outbox.ErrUnchanged
		}
		return a.settle(doc, e), nil
	})
	if err != nil {
		return err
	}
	if closed {
		a.count(ctx, doc.Body)
	}
	if e.Again != "" {
		_, err = a.Challenges.TellAgain(ctx, doc, e.Again)
	}
	return err
}

// settle brings an effect into the document: what is to be told, what was answered, when there is work.
func (a *App) settle(doc *Doc, e domain.Effect) []outbox.Fact {
	for _, key := range e.Answered {
		outbox.Answered(&doc.Meta, key)
	}
	facts := make([]outbox.Fact, len(e.Facts))
	for i, f := range e.Facts {
		if f.Await {
			facts[i] = outbox.Await(f.Natural, f.Msg)
		} else {
			facts[i] = outbox.Keep(f.Natural, f.Msg)
		}
	}
	a.schedule(doc)
	return facts
}

// schedule says when the worker has something to do. Handlers, calls and worker all write, and all come here.
func (a *App) schedule(doc *Doc) {
	_, at, ever := doc.Body.Next(a.Clock.Now())
	if !ever {
		at = clock.Never
	}
	doc.WorkAt = at
}
