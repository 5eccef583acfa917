package app

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// SetDoc is a stored record set.
type SetDoc = docstore.Doc[domain.RecordSet]

// RecordWanted hears that a challenge wants a value at a name. only is the account that has to write it, empty for any; a set that is bound to
// an account already stays with it until its values are gone.
func (a *App) RecordWanted(ctx context.Context, team, challenge, fqdn, value, only string) error {
	return a.hear(ctx, team, challenge, fqdn, value, func(s *domain.RecordSet, challenge, value string, now time.Time) domain.Outcome {
		out := s.Want(challenge, value, now)
		if out.Changed && s.AccountID == "" {
			s.Only = only
		}
		return out
	})
}

// RecordUnwanted hears that a challenge wants a value no more.
func (a *App) RecordUnwanted(ctx context.Context, team, challenge, fqdn, value string) error {
	return a.hear(ctx, team, challenge, fqdn, value, (*domain.RecordSet).Unwant)
}

func (a *App) hear(ctx context.Context, team, challenge, fqdn, value string,
	change func(*domain.RecordSet, string, string, time.Time) domain.Outcome,
) error {
	if challenge == "" || value == "" {
		return errs.New(errs.Invalid, "EVENT_MALFORMED", "a record's fact names no challenge or no value")
	}
	set, err := domain.NewRecordSet(fqdn)
	if err != nil {
		return err
	}
	team = cmp.Or(team, "default")
	id, now := domain.RecordSetID(team, set.FQDN), a.Clock.Now()
	var out domain.Outcome
	f := func(doc *SetDoc) ([]outbox.Fact, error) {
		out = change(&doc.Body, challenge, value, now)
		if !out.Changed {
			return nil, outbox.ErrUnchanged
		}
		return a.settle(doc, out), nil
	}
	doc, err := a.Sets.Change(ctx, id, f)
	if errs.KindOf(err) == errs.NotFound {
		doc = SetDoc{Meta: docstore.Meta{ID: id, Team: team}, Body: set}
		facts, _ := f(&doc) // an empty set knows nothing yet, so this is a change
		err = a.Sets.Insert(ctx, &doc, facts...)
		if errs.KindOf(err) == errs.AlreadyExists { // somebody was quicker
			doc, err = a.Sets.Change(ctx, id, f)
		}
	}
	if err != nil || out.Again == "" {
		return err
	}
	_, err = a.Sets.TellAgain(ctx, doc, out.Again)
	return err
}

// settle brings an outcome into the document: what is to be told, what is void, when there is work.
func (a *App) settle(doc *SetDoc, out domain.Outcome) []outbox.Fact {
	outbox.Forget(&doc.Meta, func(natural string) bool { return slices.Contains(out.Forget, natural) })
	facts := make([]outbox.Fact, len(out.Facts))
	for i, f := range out.Facts {
		facts[i] = outbox.Keep(f.Natural, f.Msg)
	}
	a.schedule(doc)
	return facts
}

// schedule says when the worker has something to do. Handlers and worker both write, and both come here.
func (a *App) schedule(doc *SetDoc) {
	doc.WorkAt = clock.Never
	if at, due := doc.Body.WorkAt(a.Clock.Now()); due {
		doc.WorkAt = at
	}
}

// Step does the next thing for a set: choose its account, write the union, or see what is there.
func (a *App) Step(ctx context.Context, doc SetDoc) (worker.Result[domain.RecordSet], error) {
	set := doc.Body
	switch set.Next() {
	case domain.Bind:
		return a.bind(ctx, doc)
	case domain.Write, domain.Await, domain.Read:
	case domain.Rest:
		return a.result(doc, func(*domain.RecordSet) domain.Outcome { return domain.Outcome{} }), nil
	}
	account, err := a.Accounts.Get(ctx, set.AccountID)
	gone := errs.KindOf(err) == errs.NotFound
	if err != nil && !gone {
		return worker.Result[domain.RecordSet]{}, err
	}
	if set.Loose() && (gone || account.Tombstone || account.Body.Disabled) {
		return a.result(doc, func(s *domain.RecordSet) domain.Outcome {
			if s.Loose() {
				s.Unbind()
			}
			return domain.Outcome{}
		}), nil
	}
	var p Provider
	if gone {
		err = errs.New(errs.Precondition, domain.ReasonAccountGone, "the DNS account %s, which wrote records at %s, does not exist any more; remove them by hand", set.AccountID, set.FQDN)
	} else {
		p, err = a.open(ctx, account)
	}
	if err != nil {
		return a.failed(ctx, doc, err), nil
	}
	switch set.Next() {
	case domain.Write:
		return a.write(ctx, doc, p, time.Duration(account.Body.TTL)*time.Second)
	case domain.Await:
		return a.await(ctx, doc, p)
	case domain.Read, domain.Bind, domain.Rest:
	}
	return a.read(ctx, doc, p)
}

func (a *App) bind(ctx context.Context, doc SetDoc) (worker.Result[domain.RecordSet], error) {
	choice, ok, err := a.Resolve(ctx, doc.Team, doc.Body.FQDN, doc.Body.Only)
	if err != nil {
		return worker.Result[domain.RecordSet]{}, err
	}
	if !ok {
		return a.failed(ctx, doc, errs.New(errs.Precondition, domain.ReasonNoAccount, "%s", choice.Explanation)), nil
	}
	return a.result(doc, func(s *domain.RecordSet) domain.Outcome {
		if s.Next() == domain.Bind {
			s.BindTo(choice)
		}
		return domain.Outcome{}
	}), nil
}

func (a *App) write(ctx context.Context, doc SetDoc, p Provider, ttl time.Duration) (worker.Result[domain.RecordSet], error) {
	want, drop := doc.Body.Union()
	var change string
	err := worker.Call(ctx, "dns.apply", func(ctx context.Context) error {
		return a.bounded(ctx, func(ctx context.Context) (err error) {
			change, err = p.Apply(ctx, doc.Body.Zone, doc.Body.FQDN, want, drop, ttl)
			return err
		})
	})
	if err != nil {
		return a.called(ctx, doc, err)
	}
	return a.result(doc, func(s *domain.RecordSet) domain.Outcome {
		s.Wrote(want, drop)
		s.Await(change)
		return domain.Outcome{}
	}), nil
}

// await asks whether the provider's servers all have the last write.
func (a *App) await(ctx context.Context, doc SetDoc, p Provider) (worker.Result[domain.RecordSet], error) {
	change, done := doc.Body.Change, true
	if settler, ok := p.(Settler); ok {
		err := worker.Call(ctx, "dns.settled", func(ctx context.Context) error {
			return a.bounded(ctx, func(ctx context.Context) (err error) {
				done, err = settler.Settled(ctx, change)
				return err
			})
		})
		if err != nil {
			return a.called(ctx, doc, err)
		}
	}
	return a.result(doc, func(s *domain.RecordSet) domain.Outcome { return s.Settled(change, done, p.Server(), a.Clock.Now()) }), nil
}

func (a *App) read(ctx context.Context, doc SetDoc, p Provider) (worker.Result[domain.RecordSet], error) {
	var found []string
	err := worker.Call(ctx, "dns.read", func(ctx context.Context) error {
		return a.bounded(ctx, func(ctx context.Context) (err error) {
			found, err = p.Read(ctx, doc.Body.Zone, doc.Body.FQDN)
			return err
		})
	})
	if err != nil {
		return a.called(ctx, doc, err)
	}
	return a.result(doc, func(s *domain.RecordSet) domain.Outcome { return s.Saw(found, p.Server(), a.Clock.Now()) }), nil
}

// called judges the error of a call: the end of the step itself is not the provider's fault, and the step is simply done again.
func (a *App) called(ctx context.Context, doc SetDoc, err error) (worker.Result[domain.RecordSet], error) {
	if ctx.Err() != nil || errs.ReasonOf(err) == "LEASE_ENDED" {
		return worker.Result[domain.RecordSet]{}, err
	}
	return a.failed(ctx, doc, err), nil
}

func (a *App) failed(ctx context.Context, doc SetDoc, err error) worker.Result[domain.RecordSet] {
	unknown := errs.KindOf(err) == errs.Timeout || errs.KindOf(err) == errs.Internal || errs.KindOf(err) == errs.Canceled
	a.Logger.WarnContext(ctx, "a record set is not as it should be", "reason", errs.ReasonOf(err), "error", err)
	return a.result(doc, func(s *domain.RecordSet) domain.Outcome {
		out := s.Failed(domain.ProblemOf(err), unknown, a.Clock.Now())
		if e := errs.As(err); e != nil && len(s.Values) > 0 {
			s.Pause(e.RetryAfter, a.Clock.Now())
		}
		if len(out.LeftBehind) > 0 {
			a.Logger.ErrorContext(ctx, "values are left in the zone since they could not be removed for days", "fqdn", s.FQDN, "values", strings.Join(out.LeftBehind, " "))
		}
		return out
	})
}

// result makes a result of what a step of was came to. What was heard or mended during the step is not put off by it.
func (a *App) result(was SetDoc, f func(*domain.RecordSet) domain.Outcome) worker.Result[domain.RecordSet] {
	return worker.Result[domain.RecordSet]{Apply: func(doc *SetDoc) ([]outbox.Fact, error) {
		out := f(&doc.Body)
		if doc.Revision != was.Revision {
			doc.Body.Retry()
		}
		return a.settle(doc, out), nil
	}}
}

// ListSets returns a page of record sets by id, of all teams when team is empty.
func (a *App) ListSets(ctx context.Context, team string, size int, after string) (docstore.Page[domain.RecordSet], error) {
	q := docstore.Query{Limit: size, After: after, Where: []docstore.Cond{{Field: "idle", Op: docstore.Eq, Value: false}}}
	if team != "" {
		q.Where = append([]docstore.Cond{{Field: "team", Op: docstore.Eq, Value: team}}, q.Where...)
	}
	return a.Sets.Find(ctx, q)
}
