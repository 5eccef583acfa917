package app

import (
	"context"
	"errors"
	"strings"

	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

type result = worker.Result[domain.Order]

// StepOrder does the next thing for an order: at most one outside call. What it answers is applied to the order as it is then.
func (a *App) StepOrder(ctx context.Context, doc docstore.Doc[domain.Order]) (result, error) {
	if len(doc.Orphans) > 0 {
		return a.tidy(ctx, doc)
	}
	o := doc.Body.Clone()
	lease := doc.LeaseToken
	next := o.Decide(lease, a.Clock.Now())
	if next.At.After(a.Clock.Now()) {
		return a.then(func(*domain.Order) ([]domain.Fact, error) { return nil, nil }), nil
	}
	switch next.Step {
	case domain.StepNone:
		return a.then(func(*domain.Order) ([]domain.Fact, error) { return nil, nil }), nil
	case domain.StepGiveUp:
		return a.then(func(o *domain.Order) ([]domain.Fact, error) { return o.GiveUp(a.Clock.Now()) }), nil
	case domain.StepExpire:
		return a.then(func(o *domain.Order) ([]domain.Fact, error) { return o.Expire(a.Clock.Now()) }), nil
	case domain.StepUnknown:
		return a.then(func(o *domain.Order) ([]domain.Fact, error) { o.Unknown(a.Clock.Now()); return nil, nil }), nil
	case domain.StepEnsureCSR:
		return a.ensureCSR(ctx, doc)
	case domain.StepOpenAttempt:
		return a.openAttempt(ctx, o, lease)
	}
	acc, issuer, err := a.existing(ctx, o.Attempt().IssuerID, o.Attempt().AccountID)
	if err != nil {
		return a.gone(err, o.Attempt().IssuerID)
	}
	switch next.Step {
	case domain.StepNewOrder:
		return a.newOrder(ctx, o, acc)
	case domain.StepAuthorizations:
		return a.authorizations(ctx, o, acc, lease)
	case domain.StepRespond:
		return a.respond(ctx, o, acc)
	case domain.StepPoll:
		return a.poll(ctx, o, acc, lease)
	case domain.StepFinalize:
		return a.finalize(ctx, o, acc)
	case domain.StepDownload:
		return a.download(ctx, o, acc, issuer.Body)
	}
	return result{}, errs.New(errs.Internal, "", "no way to do step %s", next.Step)
}

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

// trouble writes what went wrong. A context that ended because the worker stops is no trouble of the order's.
func (a *App) trouble(ctx context.Context, err error, attempt int64) (result, error) {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) && !errors.As(err, new(*domain.Failure)) {
		return result{}, err
	}
	f := failureOf(err)
	if f == nil {
		return result{}, err
	}
	apply := func(o *domain.Order) ([]domain.Fact, error) {
		if f.Gone {
			return o.Gone(f.Problem.Clone(), a.Clock.Now())
		}
		return o.Trouble(f.Problem.Clone(), f.RetryAfter, a.Clock.Now())
	}
	if attempt == 0 {
		return a.then(apply), nil
	}
	return a.thenIn(attempt, apply), nil
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

func (a *App) ensureCSR(ctx context.Context, doc docstore.Doc[domain.Order]) (result, error) {
	o := doc.Body
	var resp *keysv1.EnsureCSRResponse
	err := worker.Call(ctx, "keys.EnsureCSR", func(ctx context.Context) (err error) {
		resp, err = a.Keys.EnsureCSR(ctx, &keysv1.EnsureCSRRequest{
			OrderId: doc.ID, CertificateId: o.CertificateID, Algorithm: o.Spec.KeyAlgorithm, Names: o.Spec.Names, Team: doc.Team, Owner: o.Owner,
		})
		return err
	})
	if err != nil {
		return a.trouble(ctx, err, 0)
	}
	return a.then(func(o *domain.Order) ([]domain.Fact, error) {
		o.HaveCSR(resp.GetKeyId(), resp.GetCsrDer(), resp.GetSpkiSha256())
		return nil, nil
	}), nil
}

// openAttempt makes sure of the account and stores the attempt. newOrder is sent by the next step, under the same lease.
func (a *App) openAttempt(ctx context.Context, o domain.Order, lease string) (result, error) {
	issuer, err := a.issuer(ctx, o.Spec.IssuerID)
	if err != nil {
		return a.gone(err, o.Spec.IssuerID)
	}
	if issuer.Tombstone || issuer.Body.Disabled {
		return a.then(func(o *domain.Order) ([]domain.Fact, error) {
			return o.Fail(&domain.Problem{Reason: "ISSUER_DISABLED", Detail: "the issuer " + issuer.Body.DisplayName + " is disabled or deleted; enable it or choose another issuer for the certificate"}, a.Clock.Now())
		}), nil
	}
	acc, err := a.account(ctx, issuer)
	if err != nil {
		return a.trouble(ctx, err, 0)
	}
	return a.then(func(o *domain.Order) ([]domain.Fact, error) {
		if o.Attempt() != nil {
			return nil, nil
		}
		return nil, o.OpenAttempt(acc.ID, lease, a.Clock.Now())
	}), nil
}

func (a *App) newOrder(ctx context.Context, o domain.Order, acc acme.Account) (result, error) {
	at := o.Attempt()
	profile := o.Spec.Profile
	if profile == "" {
		profile = acc.Issuer.Profile
	}
	var ca domain.CAOrder
	err := worker.Call(ctx, "acme.newOrder", func(ctx context.Context) (err error) {
		ca, err = a.CA.NewOrder(ctx, acc, o.Spec, profile, at.Replaces)
		return err
	})
	if err != nil {
		return a.notOrdered(ctx, err, at.Number)
	}
	res := a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) { o.Ordered(ca); return nil, nil })
	apply := res.Apply
	orphan := docstore.Orphan{Kind: "acme.order", Ref: at.IssuerID + " " + at.AccountID + " " + ca.URL}
	res.Orphan = &orphan
	res.Apply = func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		if now := doc.Body.Attempt(); now == nil || now.Number != at.Number { // cancelled meanwhile: nobody wants what the CA has opened
			orphan.At = a.Clock.Now()
			doc.Orphans = append(append([]docstore.Orphan(nil), doc.Orphans...), orphan)
		}
		return apply(doc)
	}
	return res, nil
}

// notOrdered takes a failed newOrder: what the CA definitely does not have leaves no attempt behind, the rest stays as unknown.
func (a *App) notOrdered(ctx context.Context, err error, attempt int64) (result, error) {
	f := failureOf(err)
	if f == nil || (ctx.Err() != nil && f.Unknown) {
		return result{}, err // the lease ends and the attempt counts as unknown
	}
	return a.thenIn(attempt, func(o *domain.Order) ([]domain.Fact, error) {
		p := f.Problem.Clone()
		replaced := o.Attempt().Replaces != "" && !p.Retrying && p.Type != ""
		if !f.Unknown && !replaced {
			o.NotOrdered()
		}
		if f.Unknown {
			o.Unknown(a.Clock.Now())
		}
		return o.Trouble(p, f.RetryAfter, a.Clock.Now())
	}), nil
}

func (a *App) authorizations(ctx context.Context, o domain.Order, acc acme.Account, lease string) (result, error) {
	at := o.Attempt()
	var zs []domain.Authorization
	err := worker.Call(ctx, "acme.authorizations", func(ctx context.Context) (err error) {
		zs, err = a.CA.Authorizations(ctx, acc, at.AuthzURLs)
		return err
	})
	if err != nil {
		return a.trouble(ctx, err, at.Number)
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		if o.State != domain.Queued {
			return nil, nil
		}
		return o.NeedAuthorizations(zs, lease, a.Clock.Now())
	}), nil
}

func (a *App) respond(ctx context.Context, o domain.Order, acc acme.Account) (result, error) {
	at := o.Attempt()
	var urls []string
	var numbers []int64
	for _, z := range at.Authorizations {
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
		return a.trouble(ctx, err, at.Number)
	}
	// A CA that refuses the answer of a challenge has decided already, by an earlier one: polling says how.
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) { o.Responded(numbers); return nil, nil }), nil
}

func (a *App) poll(ctx context.Context, o domain.Order, acc acme.Account, lease string) (result, error) {
	at := o.Attempt()
	var ca domain.CAOrder
	var zs []domain.Authorization
	err := worker.Call(ctx, "acme.order", func(ctx context.Context) (err error) {
		ca, err = a.CA.Order(ctx, acc, at.URL)
		if err == nil && ca.Status == "invalid" && o.State == domain.Authorizing {
			zs, err = a.CA.Authorizations(ctx, acc, at.AuthzURLs)
		}
		return err
	})
	if err != nil {
		return a.trouble(ctx, err, at.Number)
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) { return o.Polled(ca, zs, lease, a.Clock.Now()) }), nil
}

func (a *App) finalize(ctx context.Context, o domain.Order, acc acme.Account) (result, error) {
	at := o.Attempt()
	var ca domain.CAOrder
	err := worker.Call(ctx, "acme.finalize", func(ctx context.Context) (err error) {
		ca, err = a.CA.Finalize(ctx, acc, at.URL, at.FinalizeURL, o.CSR)
		return err
	})
	if err != nil {
		return a.trouble(ctx, err, at.Number)
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) { return o.Finalized(ca, a.Clock.Now()) }), nil
}

func (a *App) download(ctx context.Context, o domain.Order, acc acme.Account, issuer domain.Issuer) (result, error) {
	at := o.Attempt()
	var chain [][]byte
	err := worker.Call(ctx, "acme.certificate", func(ctx context.Context) (err error) {
		chain, err = a.CA.Certificate(ctx, acc, at.CertificateURL)
		return err
	})
	if err != nil {
		return a.trouble(ctx, err, at.Number)
	}
	return a.thenIn(at.Number, func(o *domain.Order) ([]domain.Fact, error) {
		now := a.Clock.Now()
		if p := o.Verify(chain, roots(issuer), now); p != nil {
			return o.Fail(p, now)
		}
		return o.HaveCertificate(chain, now)
	}), nil
}

// tidy gives back what a worker without lease, or for a cancelled order, created at the CA.
func (a *App) tidy(ctx context.Context, doc docstore.Doc[domain.Order]) (result, error) {
	orphan := doc.Orphans[0]
	issuerID, accountID, url, ok := splitRef(orphan.Ref)
	drop := result{Apply: func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		for i, o := range doc.Orphans {
			if o == orphan {
				doc.Orphans = append(append([]docstore.Orphan(nil), doc.Orphans[:i]...), doc.Orphans[i+1:]...)
				break
			}
		}
		settle(doc, a.Clock.Now())
		return nil, nil
	}}
	if !ok || orphan.Kind != "acme.order" || a.Clock.Now().Sub(orphan.At) > domain.Longest {
		return drop, nil
	}
	for _, at := range doc.Body.Attempts {
		if at.URL == url && at.State == domain.AttemptOpen {
			return drop, nil // it was adopted after all
		}
	}
	acc, _, err := a.existing(ctx, issuerID, accountID)
	if errs.KindOf(err) == errs.NotFound {
		return drop, nil
	}
	if err != nil {
		return result{}, err
	}
	err = worker.Call(ctx, "acme.abandon", func(ctx context.Context) error { return a.CA.Abandon(ctx, acc, url) })
	var f *domain.Failure
	if errors.As(err, &f) && (f.Gone || !f.Problem.Retrying) {
		return drop, nil
	}
	if err != nil {
		return result{}, errs.New(errs.Unavailable, "CA_UNREACHABLE", "giving back an order nobody wants: %w", err)
	}
	return drop, nil
}

// splitRef takes an orphan's reference apart: issuer, account and order URL.
func splitRef(ref string) (issuerID, accountID, url string, ok bool) {
	parts := strings.SplitN(ref, " ", 3)
	if len(parts) != 3 {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}
