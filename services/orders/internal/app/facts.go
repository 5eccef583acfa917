package app

import (
	"context"
	"slices"
	"strings"
	"time"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	chalev "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// Requested makes the order of an intent. Told again, it tells its present answers again.
func (a *App) Requested(ctx context.Context, m *certev.Requested, team string) error {
	if m.GetOrderId() == "" || m.GetCertificateId() == "" || len(m.GetSpec().GetNames()) == 0 {
		return errs.New(errs.Invalid, "EVENT_MALFORMED", "certificate.requested names no order, no certificate or no names")
	}
	now := a.Clock.Now()
	doc := docstore.Doc[domain.Order]{Meta: docstore.Meta{ID: m.GetOrderId(), Team: team}, Body: domain.FromRequested(m, now)}
	settle(&doc, now)
	err := a.Orders.Insert(ctx, &doc, facts([]domain.Fact{doc.Body.Tell()})...)
	if err == nil || errs.KindOf(err) != errs.AlreadyExists {
		return err
	}
	return a.answer(ctx, m.GetOrderId(), domain.AcceptedKey, domain.OutcomeKey)
}

// answer tells again what the order has to say under these keys.
func (a *App) answer(ctx context.Context, orderID string, keys ...string) error {
	doc, err := a.Orders.Get(ctx, orderID)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := a.Orders.TellAgain(ctx, doc, k); err != nil {
			return err
		}
	}
	return nil
}

// Unwanted cancels an order because of an edit or a deletion. An order that was not heard of yet is cancelled in advance.
func (a *App) Unwanted(ctx context.Context, certificateID, orderID, team, reason string) error {
	if orderID == "" {
		return nil
	}
	now := a.Clock.Now()
	over := false
	_, err := a.changeOrder(ctx, orderID, func(o *domain.Order) ([]domain.Fact, bool, error) {
		fs, done := o.Cancel(reason, now)
		over = !done && o.State.Final()
		return fs, done, nil
	})
	if over {
		return a.answer(ctx, orderID, domain.OutcomeKey)
	}
	if errs.KindOf(err) != errs.NotFound {
		return err
	}
	o := domain.New(orderID, certificateID, 0, 0, domain.Spec{}, nil, "", "", now)
	fs, _ := o.Cancel(reason, now)
	doc := docstore.Doc[domain.Order]{Meta: docstore.Meta{ID: orderID, Team: team}, Body: o}
	settle(&doc, now)
	err = a.Orders.Insert(ctx, &doc, facts(fs)...)
	if errs.KindOf(err) == errs.AlreadyExists {
		return errs.New(errs.Conflict, "", "order %s came at the same moment", orderID) // redelivered, and then found
	}
	return err
}

// Answered notes that inventory has taken the certificate, or refused it.
func (a *App) Answered(ctx context.Context, orderID, versionID string) error {
	_, err := a.Orders.Change(ctx, orderID, func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		if !outbox.Answered(&doc.Meta, domain.OutcomeKey) && doc.Body.VersionID == versionID {
			return nil, outbox.ErrUnchanged
		}
		doc.Body.VersionID = versionID
		outbox.Forget(&doc.Meta, func(natural string) bool { return strings.HasPrefix(natural, "closed/") }) // the outcome says as much
		return nil, nil
	})
	return unknownIsFine(err)
}

// Presented notes that an answer is in place. Asked again about a closed authorization, it tells the outcome again.
func (a *App) Presented(ctx context.Context, m *chalev.Presented) error {
	doc, err := a.changeOrder(ctx, m.GetOrderId(), func(o *domain.Order) ([]domain.Fact, bool, error) {
		return nil, o.Presented(m.GetAttempt(), m.GetAuthorization(), m.GetChallengeId(), m.GetType()), nil
	})
	if err != nil {
		return unknownIsFine(err)
	}
	if z := doc.Body.Authorization(m.GetAttempt(), m.GetAuthorization()); z != nil && z.State.Open() {
		return nil
	}
	told, err := a.Orders.TellAgain(ctx, doc, domain.ClosedKey(m.GetAttempt(), m.GetAuthorization()))
	if err == nil && !told { // that of the order closes all
		_, err = a.Orders.TellAgain(ctx, doc, domain.OutcomeKey)
	}
	return err
}

// daily is how often challenges is asked again while a person has to do something, and soon from when on the next time counts as near.
const (
	daily = 24 * time.Hour
	soon  = daily / 2
)

// ActionRequired notes what a person has to place; challenges is asked again only daily from now on.
func (a *App) ActionRequired(ctx context.Context, m *chalev.ActionRequired) error {
	required := domain.RequiredKey(m.GetAttempt(), m.GetAuthorization())
	_, err := a.Orders.Change(ctx, m.GetOrderId(), func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		o := doc.Body.Clone()
		now := a.Clock.Now()
		news := o.ActionRequired(m.GetAttempt(), m.GetAuthorization(), m.GetChallengeId(), domain.Action{Type: m.GetType(), Location: m.GetLocation(), Value: m.GetValue()})
		if !news {
			if !slices.ContainsFunc(doc.Kept, func(k docstore.Kept) bool { return k.Key == required && k.Await && k.NextAt.Before(now.Add(soon)) }) {
				return nil, outbox.ErrUnchanged
			}
			outbox.Postpone(&doc.Meta, required, now.Add(daily))
			return nil, nil
		}
		fs := o.Block(&domain.Problem{Reason: "ACTION_REQUIRED", Retrying: true, Detail: "a person has to place " + m.GetLocation() + " and verify the challenge " + m.GetChallengeId()}, time.Time{})
		doc.Body = o
		outbox.Postpone(&doc.Meta, required, now.Add(daily))
		settle(doc, now)
		return facts(fs), nil
	})
	return unknownIsFine(err)
}

// ChallengeFailed notes that an answer cannot be placed.
func (a *App) ChallengeFailed(ctx context.Context, m *chalev.Failed) error {
	_, err := a.Orders.Change(ctx, m.GetOrderId(), func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		o := doc.Body.Clone()
		fs, news, err := o.ChallengeFailed(m.GetAttempt(), m.GetAuthorization(), domain.ProblemFrom(m.GetProblem()), a.Clock.Now())
		if err != nil {
			return nil, err
		}
		// challenges tries on by itself, and was heard.
		rests := o.State == domain.Authorizing && a.Orders.Rest(&doc.Meta, domain.RequiredKey(m.GetAttempt(), m.GetAuthorization()))
		if !news && !rests {
			return nil, outbox.ErrUnchanged
		}
		doc.Body = o
		settle(doc, a.Clock.Now())
		return facts(fs), nil
	})
	return unknownIsFine(err)
}

// RevocationRequested makes the revocation of a version. requestID is the fact's id: told again, it tells its outcome again.
func (a *App) RevocationRequested(ctx context.Context, m *certev.RevocationRequested, requestID, team string) error {
	v := m.GetVersion()
	doc := docstore.Doc[domain.Revocation]{
		Meta: docstore.Meta{ID: id.Derive("rvk", v.GetVersionId()), Team: team, WorkAt: a.Clock.Now()},
		Body: domain.Revocation{
			RequestID: requestID, VersionID: v.GetVersionId(), CertificateID: m.GetCertificateId(), IssuerID: v.GetIssuerId(), AccountID: v.GetAccountId(), KeyID: v.GetKeyId(),
			Reason: m.GetReason(), By: m.GetBy(), DER: m.GetCertificateDer(), State: domain.RevocationPending,
		},
	}
	err := a.Revocations.Insert(ctx, &doc)
	if err == nil || errs.KindOf(err) != errs.AlreadyExists {
		return err
	}
	found, err := a.Revocations.Get(ctx, doc.ID)
	if err != nil {
		return err
	}
	if found.Body.State == domain.RevocationFailed && found.Body.RequestID != requestID { // asked anew after a refusal
		_, err = a.Revocations.Change(ctx, doc.ID, func(d *docstore.Doc[domain.Revocation]) ([]outbox.Fact, error) {
			d.Body.State, d.Body.RequestID, d.Body.Reason, d.Body.Problem, d.Body.Retries = domain.RevocationPending, requestID, m.GetReason(), nil, 0
			d.Body.KeyID, d.Body.ByKey = v.GetKeyId(), false
			d.WorkAt = a.Clock.Now()
			outbox.Forget(&d.Meta, func(string) bool { return true })
			return nil, nil
		})
		return err
	}
	if found.Body.State == domain.RevocationPending {
		return nil
	}
	_, err = a.Revocations.TellAgain(ctx, found, domain.OutcomeKey)
	return err
}

func unknownIsFine(err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return nil // an order of a store that was lost; its asker asks again or gives up
	}
	return err
}
