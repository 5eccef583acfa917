package app

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

type result = worker.Result[domain.Order]

// patience is how long a step waits for a CA that is about to answer, before it writes what it knows and lets others have its place.
const patience = 1500 * time.Millisecond

// StepOrder does the next thing for an order: what can be asked in one go without anything that must be stored first. What it answers is applied to
// the order as it is then.
func (a *App) StepOrder(ctx context.Context, doc docstore.Doc[domain.Order]) (result, error) {
	o := doc.Body.Clone()
	lease := doc.LeaseToken
	next := o.Decide(lease, a.Clock.Now())
	if next.Step == domain.StepNone || next.At.After(a.Clock.Now()) {
		return a.then(nothing), nil
	}
	switch next.Step {
	case domain.StepGiveUp:
		return a.then(func(o *domain.Order) ([]domain.Fact, error) { return o.GiveUp(a.Clock.Now()) }), nil
	case domain.StepExpire:
		return a.thenIn(o.Attempt().Number, func(o *domain.Order) ([]domain.Fact, error) { return o.Expire(a.Clock.Now()) }), nil
	case domain.StepUnknown:
		return a.thenIn(o.Attempt().Number, func(o *domain.Order) ([]domain.Fact, error) { o.Unknown(); return nil, nil }), nil
	case domain.StepEnsureCSR, domain.StepOpenAttempt:
		return a.openAttempt(ctx, doc)
	}
	at := o.Attempt()
	acc, issuer, err := a.existing(ctx, at.IssuerID, at.AccountID)
	if errors.As(err, new(*domain.Failure)) {
		return a.trouble(ctx, err, acc, at.Number)
	}
	if err != nil {
		return a.gone(err, at.IssuerID)
	}
	if o.State == domain.Authorizing && at.AccountKey != "" && at.AccountKey != acc.Thumbprint {
		return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) { return o.KeyChanged(a.Clock.Now()) }), nil
	}
	switch next.Step {
	case domain.StepNewOrder:
		return a.newOrder(ctx, o, acc, issuer, lease)
	case domain.StepAuthorizations:
		return a.authorizations(ctx, o, acc, lease)
	case domain.StepRespond:
		return a.respond(ctx, o, acc, issuer, lease)
	case domain.StepPoll:
		return a.poll(ctx, o, acc, issuer, lease)
	case domain.StepFinalize:
		return a.finalize(ctx, o, acc, issuer.Body)
	case domain.StepDownload:
		ca := domain.CAOrder{Status: "valid", CertificateURL: at.CertificateURL}
		return a.ending(ctx, ca, acc, issuer.Body, at.Number, nothing)
	}
	return result{}, errs.New(errs.Internal, "", "no way to do step %s", next.Step)
}

func nothing(*domain.Order) ([]domain.Fact, error) { return nil, nil }

// then writes what f makes of an order that is still open.
func (a *App) then(f func(o *domain.Order) ([]domain.Fact, error)) result {
	return result{Apply: func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		o := doc.Body.Clone()
		var fs []domain.Fact
		if !o.State.Final() {
			var err error
			if fs, err = f(&o); err != nil {
				return nil, err
			}
		}
		doc.Body = o
		settle(doc, a.Clock.Now())
		return facts(fs), nil
	}}
}

// thenIn is then for an attempt: an answer about an attempt that is open no more is dropped.
func (a *App) thenIn(attempt int64, f func(o *domain.Order) ([]domain.Fact, error)) result {
	return a.then(func(o *domain.Order) ([]domain.Fact, error) {
		if now := o.Attempt(); now == nil || now.Number != attempt {
			return nil, nil
		}
		return f(o)
	})
}

// stopping reports whether ctx ended because the worker stops: what did not come about then is no trouble of the order's.
func stopping(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return ctx.Err() != nil && (errors.Is(cause, context.Canceled) || errs.KindOf(cause) == errs.Canceled)
}

// trouble writes what went wrong. acc is the account that the CA was asked with, if one was; attempt 0: none is open.
func (a *App) trouble(ctx context.Context, err error, acc acme.Account, attempt int64) (result, error) {
	f := failureOf(err)
	if f == nil || (f.Unknown && stopping(ctx)) || (ctx.Err() != nil && !errors.As(err, new(*domain.Failure))) {
		return result{}, err
	}
	if err := a.reconsider(ctx, f, acc); err != nil {
		return result{}, err
	}
	apply := func(o *domain.Order) ([]domain.Fact, error) { return take(o, f, a.Clock.Now()) }
	if attempt == 0 {
		return a.then(apply), nil
	}
	return a.thenIn(attempt, apply), nil
}

// take makes of the order what a failure at one of its steps means.
func take(o *domain.Order, f *domain.Failure, now time.Time) ([]domain.Fact, error) {
	if f.Gone {
		return o.Gone(f.Problem.Clone(), now)
	}
	return o.Trouble(f.Problem.Clone(), f.RetryAfter, now)
}

// failureOf returns the CA's failure in err, or makes one of a sibling's refusal; nil for what nobody foresaw.
func failureOf(err error) *domain.Failure {
	var f *domain.Failure
	if errors.As(err, &f) {
		return f
	}
	e := errs.As(err)
	if e == nil || e.Kind == errs.Internal {
		return nil
	}
	return &domain.Failure{Problem: domain.Problem{Reason: errs.ReasonOf(err), Detail: e.Error(), Retrying: errs.Transient(err)}, RetryAfter: e.RetryAfter}
}

// gone handles an issuer or account that is not there any more.
func (a *App) gone(err error, issuerID string) (result, error) {
	if errs.KindOf(err) != errs.NotFound {
		return result{}, err
	}
	return a.then(func(o *domain.Order) ([]domain.Fact, error) {
		return o.Fail(&domain.Problem{Reason: "ISSUER_GONE", Detail: "the issuer " + issuerID + " or its account does not exist any more; choose another issuer for the certificate"}, a.Clock.Now())
	}), nil
}

// openAttempt has the CSR made, makes sure of the account, asks the ledger, and stores the attempt. newOrder is sent by the next step, under the same lease.
func (a *App) openAttempt(ctx context.Context, doc docstore.Doc[domain.Order]) (result, error) {
	o, lease := doc.Body, doc.LeaseToken
	issuer, err := a.issuer(ctx, o.Spec.IssuerID)
	if err != nil {
		return a.gone(err, o.Spec.IssuerID)
	}
	if issuer.Tombstone || issuer.Body.Disabled {
		return a.then(func(o *domain.Order) ([]domain.Fact, error) {
			return o.Fail(&domain.Problem{Reason: "ISSUER_DISABLED", Detail: "the issuer " + issuer.Body.DisplayName + " is disabled or deleted; enable it or choose another issuer for the certificate"}, a.Clock.Now())
		}), nil
	}
	var made *keysv1.EnsureCSRResponse
	if len(o.CSR) == 0 {
		err := worker.Call(ctx, "keys.EnsureCSR", func(ctx context.Context) (err error) {
			made, err = a.Keys.EnsureCSR(ctx, &keysv1.EnsureCSRRequest{
				OrderId: doc.ID, CertificateId: o.CertificateID, Algorithm: o.Spec.KeyAlgorithm, Names: o.Spec.Names, Team: doc.Team, Owner: o.Owner,
			})
			return err
		})
		if err != nil {
			return a.trouble(ctx, err, acme.Account{}, 0)
		}
	}
	acc, err := a.account(ctx, issuer)
	if err != nil {
		return a.trouble(ctx, err, acme.Account{}, 0)
	}
	have := func(o *domain.Order) {
		if len(o.CSR) == 0 {
			o.HaveCSR(made.GetKeyId(), made.GetCsrDer(), made.GetSpkiSha256())
		}
	}
	have(&o)
	asked := a.Clock.Now()
	reserved, refusal, err := a.admit(ctx, &o, doc.CreatedAt, issuer)
	if err != nil {
		return result{}, err
	}
	if refusal != nil {
		return a.refusedBy(*refusal, have), nil
	}
	return a.then(func(now *domain.Order) ([]domain.Fact, error) {
		have(now)
		if now.Attempt() != nil || now.NextAttempt() != o.NextAttempt() || now.Replacing(a.Clock.Now()) != o.Replacing(asked) {
			return nil, nil // the ledger was asked for another attempt than this would be
		}
		if err := now.OpenAttempt(acc.ID, lease, a.Clock.Now()); err != nil {
			return nil, err
		}
		now.Attempt().Reservation = reserved
		return nil, nil
	}), nil
}

// newOrder sends newOrder and reads what the CA wants proven. The URL is stored even when that cannot be read now.
func (a *App) newOrder(ctx context.Context, o domain.Order, acc acme.Account, issuer docstore.Doc[domain.Issuer], lease string) (result, error) {
	at := o.Attempt()
	if !a.reserved(at) { // this process stood still; the same attempt is reserved anew
		return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) { o.NotOrdered(); return nil, nil }), nil
	}
	var ca domain.CAOrder
	err := worker.Call(ctx, "acme.newOrder", func(ctx context.Context) (err error) {
		ca, err = a.CA.NewOrder(ctx, acc, o.Spec, cmp.Or(o.Spec.Profile, acc.Issuer.Profile), at.Replaces)
		return err
	})
	if err != nil {
		return a.notOrdered(ctx, err, &o, acc, issuer)
	}
	a.answered(ctx, o.ID, at, issuer.Body, true)
	var zs []domain.Authorization
	if ca.Status == "pending" {
		zs, _ = a.read(ctx, acc, ca.AuthzURLs) // in trouble the next step reads them
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		o.Ordered(ca)
		switch {
		case ca.Status != "pending":
			return o.Polled(ca, nil, lease, a.Clock.Now())
		case zs != nil:
			o.Attempt().AccountKey = acc.Thumbprint
			return o.NeedAuthorizations(zs, lease, a.Clock.Now())
		}
		return nil, nil
	}), nil
}

// notOrdered takes a failed newOrder: what the CA definitely does not have leaves no attempt behind, the rest stays as unknown.
func (a *App) notOrdered(ctx context.Context, err error, o *domain.Order, acc acme.Account, issuer docstore.Doc[domain.Issuer]) (result, error) {
	at := o.Attempt()
	f := failureOf(err)
	if f == nil || (ctx.Err() != nil && f.Unknown) {
		return result{}, err // the lease ends and the attempt counts as unknown
	}
	if err := a.reconsider(ctx, f, acc); err != nil {
		return result{}, err
	}
	if !f.Unknown {
		a.answered(ctx, o.ID, at, issuer.Body, false)
	}
	if err := a.limited(ctx, o, f, issuer); err != nil {
		return result{}, err
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		p := f.Problem.Clone()
		p.Retrying = p.Retrying || f.AccountGone
		switch refused := o.Attempt().Replaces != "" && !p.Retrying; {
		case f.Unknown:
			o.Unknown()
		case !refused:
			o.NotOrdered()
		}
		return o.Trouble(p, f.RetryAfter, a.Clock.Now())
	}), nil
}

// read reads authorizations; never nil without an error.
func (a *App) read(ctx context.Context, acc acme.Account, urls []string) (zs []domain.Authorization, err error) {
	err = worker.Call(ctx, "acme.authorizations", func(ctx context.Context) (err error) {
		zs, err = a.CA.Authorizations(ctx, acc, urls)
		return err
	})
	if err != nil {
		return nil, err
	}
	return zs, nil
}

func (a *App) authorizations(ctx context.Context, o domain.Order, acc acme.Account, lease string) (result, error) {
	at := o.Attempt()
	zs, err := a.read(ctx, acc, at.AuthzURLs)
	if err != nil {
		return a.trouble(ctx, err, acc, at.Number)
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		if o.State != domain.Queued {
			return nil, nil
		}
		o.Attempt().AccountKey = acc.Thumbprint
		return o.NeedAuthorizations(zs, lease, a.Clock.Now())
	}), nil
}

// respond tells the CA of the answers in place. When they were the last, it waits a little for the verdict.
func (a *App) respond(ctx context.Context, o domain.Order, acc acme.Account, issuer docstore.Doc[domain.Issuer], lease string) (result, error) {
	at := o.Attempt()
	var urls []string
	var numbers []int64
	last := true
	for _, z := range at.Authorizations {
		last = last && z.State != domain.AuthzPending
		if z.State != domain.AuthzPresented {
			continue
		}
		for _, offer := range z.Offered {
			if offer.Type == z.Answered {
				urls, numbers = append(urls, offer.URL), append(numbers, z.Number)
			}
		}
	}
	err := worker.Call(ctx, "acme.respond", func(ctx context.Context) error { return a.CA.Respond(ctx, acc, urls) })
	if f := failureOf(err); err != nil && (f == nil || f.Problem.Retrying || f.Gone) {
		return a.trouble(ctx, err, acc, at.Number)
	}
	// A CA that refuses the answer of a challenge has decided already, by an earlier one: polling says how.
	ca, polls := domain.CAOrder{Status: "pending"}, 0
	var zs []domain.Authorization
	err = nil
	if last {
		if ca, polls, err = a.await(ctx, acc, at.URL, ca); err == nil && ca.Status == "invalid" {
			zs, err = a.read(ctx, acc, at.AuthzURLs)
		}
	}
	f := failureOf(err)
	if err != nil && (f == nil || stopping(ctx)) { // at least the CA was told; the next step polls
		f = nil
		ca, zs = domain.CAOrder{Status: "pending"}, nil
	}
	if err := a.countFailures(ctx, at, zs, issuer); err != nil {
		return result{}, err
	}
	if f != nil {
		if err := a.reconsider(ctx, f, acc); err != nil {
			return result{}, err
		}
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		o.Responded(numbers)
		if f != nil {
			return take(o, f, a.Clock.Now())
		}
		o.Polls = polls
		return o.Polled(ca, zs, lease, a.Clock.Now())
	}), nil
}

// await asks for the order for as long as it has the state that ca says and the CA may answer within patience. It returns the last word, and how
// often it asked.
func (a *App) await(ctx context.Context, acc acme.Account, url string, ca domain.CAOrder) (domain.CAOrder, int, error) {
	busy, until := ca.Status, a.Clock.Now().Add(patience)
	for n := 0; ; n++ {
		wait := ca.RetryAfter
		if wait <= 0 {
			wait = domain.PollAfter(n)
		}
		if ca.Status != busy || a.Clock.Now().Add(wait).After(until) || a.Clock.Sleep(ctx, wait) != nil {
			return ca, n, nil
		}
		next, err := a.order(ctx, acc, url)
		if err != nil {
			return ca, n, err
		}
		ca = next
	}
}

func (a *App) order(ctx context.Context, acc acme.Account, url string) (ca domain.CAOrder, err error) {
	err = worker.Call(ctx, "acme.order", func(ctx context.Context) (err error) {
		ca, err = a.CA.Order(ctx, acc, url)
		return err
	})
	return ca, err
}

// poll asks for the order's state. While other names still wait for their answer, or when the order is invalid, it reads the authorizations too.
func (a *App) poll(ctx context.Context, o domain.Order, acc acme.Account, issuer docstore.Doc[domain.Issuer], lease string) (result, error) {
	at := o.Attempt()
	ca, err := a.order(ctx, acc, at.URL)
	var zs []domain.Authorization
	open := slices.ContainsFunc(at.Authorizations, func(z domain.Authorization) bool { return z.State == domain.AuthzPending })
	if err == nil && o.State == domain.Authorizing && (ca.Status == "invalid" || (ca.Status == "pending" && open)) {
		zs, err = a.read(ctx, acc, at.AuthzURLs)
	}
	if err != nil {
		return a.trouble(ctx, err, acc, at.Number)
	}
	if err := a.countFailures(ctx, at, zs, issuer); err != nil {
		return result{}, err
	}
	return a.ending(ctx, ca, acc, issuer.Body, at.Number, func(o *domain.Order) ([]domain.Fact, error) { return o.Polled(ca, zs, lease, a.Clock.Now()) })
}

// finalize sends the CSR and waits a little for the certificate.
func (a *App) finalize(ctx context.Context, o domain.Order, acc acme.Account, issuer domain.Issuer) (result, error) {
	at := o.Attempt()
	var ca domain.CAOrder
	err := worker.Call(ctx, "acme.finalize", func(ctx context.Context) (err error) {
		ca, err = a.CA.Finalize(ctx, acc, at.URL, at.FinalizeURL, o.CSR)
		return err
	})
	if f := failureOf(err); f != nil && !f.Problem.Retrying && !f.Gone {
		// An earlier finalize may have been carried out, and this one be refused for that: the order itself knows.
		now, asking := a.order(ctx, acc, at.URL)
		switch {
		case asking != nil:
			return a.trouble(ctx, asking, acc, at.Number)
		case now.Status == "processing" || now.Status == "valid" || now.Status == "invalid":
			ca, err = now, nil
		}
	}
	if err != nil {
		return a.trouble(ctx, err, acc, at.Number)
	}
	polls := 0
	var asking error
	if ca.Status == "processing" {
		ca, polls, asking = a.await(ctx, acc, at.URL, ca)
	}
	f := failureOf(asking)
	return a.ending(ctx, ca, acc, issuer, at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		o.Polls = polls
		facts, err := o.Finalized(ca, a.Clock.Now())
		if f == nil || err != nil || o.State.Final() || stopping(ctx) {
			return facts, err
		}
		more, err := take(o, f, a.Clock.Now())
		return append(facts, more...), err
	})
}

// ending applies what f makes of the CA's word, and when that is "valid", ends the order with the certificate, which is fetched and checked first.
func (a *App) ending(
	ctx context.Context, ca domain.CAOrder, acc acme.Account, issuer domain.Issuer, attempt int64, f func(o *domain.Order) ([]domain.Fact, error),
) (result, error) {
	if ca.Status != "valid" || ca.CertificateURL == "" {
		return a.thenIn(attempt, f), nil
	}
	var chains [][][]byte
	err := worker.Call(ctx, "acme.certificate", func(ctx context.Context) (err error) {
		chains, err = a.CA.Chains(ctx, acc, ca.CertificateURL, issuer.PreferredChain != "")
		return err
	})
	chain, why := domain.ChooseChain(chains, issuer.PreferredChain)
	if why != "" {
		a.Logger.WarnContext(ctx, "the preferred chain is not to be had", "reason", "PreferredChainNotOffered", "issuer", issuer.DisplayName, "detail", why)
	}
	failure := failureOf(err)
	return a.thenIn(attempt, func(o *domain.Order) ([]domain.Fact, error) {
		facts, ferr := f(o)
		if ferr != nil || o.State.Final() {
			return facts, ferr
		}
		now := a.Clock.Now()
		var more []domain.Fact
		switch {
		case failure != nil && !stopping(ctx):
			p := failure.Problem.Clone()
			p.Retrying = true // the certificate exists
			more, ferr = o.Trouble(p, failure.RetryAfter, now)
		case err != nil: // the next step fetches it
			o.RetryAt = now.Add(time.Second)
		default:
			if p := o.Verify(chain, roots(issuer), now); p != nil {
				more, ferr = o.Fail(p, now)
			} else {
				more, ferr = o.HaveCertificate(chain, now)
			}
		}
		return append(facts, more...), ferr
	}), nil
}
