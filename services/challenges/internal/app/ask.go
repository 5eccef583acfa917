package app

import (
	"context"
	"time"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// verdictEvery is how often the document is looked at for the worker's verdict.
const verdictEvery = 50 * time.Millisecond

// Get returns a challenge. NotFound for the marks of authorizations that were closed before they were heard of.
func (a *App) Get(ctx context.Context, id string) (Doc, error) {
	doc, err := a.Challenges.Get(ctx, id)
	if err == nil && doc.Tombstone || errs.KindOf(err) == errs.NotFound {
		return Doc{}, errs.New(errs.NotFound, "", "challenge %s does not exist", id)
	}
	return doc, err
}

// Query of a list. Empty fields do not restrict; Action true restricts to challenges that wait for a person.
type Query struct {
	Team, Order, State, Identifier string
	Action                         bool
	Size                           int
	After                          string
}

// List returns a page of challenges by id.
func (a *App) List(ctx context.Context, in Query) (docstore.Page[domain.Challenge], error) {
	eq := func(field string, value any) docstore.Cond {
		return docstore.Cond{Field: field, Op: docstore.Eq, Value: value}
	}
	// The most telling term goes to the index, the others filter what it finds.
	var terms []docstore.Cond
	if in.Order != "" {
		terms = append(terms, eq("order_id", in.Order))
	}
	if in.Identifier != "" {
		terms = append(terms, eq("identifier", in.Identifier))
	}
	if in.Action {
		terms = append(terms, eq("action_required", true))
	}
	if in.State != "" {
		terms = append(terms, eq("state", in.State))
	}
	q := docstore.Query{Limit: in.Size, After: in.After, Filter: []docstore.Cond{eq("tombstone", false)}}
	if len(terms) > 0 {
		q.Where, q.Filter = terms[:1], append(q.Filter, terms[1:]...)
	}
	switch {
	case in.Team == "":
	case in.Order != "":
		q.Filter = append(q.Filter, eq("team", in.Team))
	default:
		q.Where = append([]docstore.Cond{eq("team", in.Team)}, q.Where...)
	}
	return a.Challenges.Find(ctx, q)
}

// Verify has the worker look now whether the answer that a person placed is visible, and returns the challenge with the verdict, or as it is
// when there is none within VerifyWait.
func (a *App) Verify(ctx context.Context, id string) (Doc, error) {
	if _, err := a.Get(ctx, id); err != nil {
		return Doc{}, err
	}
	var look int64
	doc, err := a.Challenges.Change(ctx, id, func(doc *Doc) ([]outbox.Fact, error) {
		var err error
		if look, err = doc.Body.Verify(id); err != nil {
			return nil, err
		}
		if look == 0 {
			return nil, outbox.ErrUnchanged
		}
		a.schedule(doc)
		return nil, nil
	})
	deadline := a.Clock.Now().Add(a.VerifyWait)
	for err == nil && look > doc.Body.ChecksDone && doc.Body.State == domain.Presenting && a.Clock.Now().Before(deadline) {
		if a.Clock.Sleep(ctx, verdictEvery) != nil {
			return doc, nil // the caller is gone; the worker looks all the same
		}
		doc, err = a.Get(ctx, id)
	}
	return doc, err
}

// Answer returns the content for a token of the http-01 responder. Any replica answers: the store is shared. NotFound when
// nobody waits for the token.
func (a *App) Answer(ctx context.Context, token string) (string, error) {
	page, err := a.Challenges.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "token", Op: docstore.Eq, Value: token}}, Limit: 10})
	if err != nil {
		return "", err
	}
	for _, d := range page.Docs {
		if c := d.Body; c.Answers(domain.HTTP01) {
			return c.Value, nil
		}
	}
	return "", errs.New(errs.NotFound, "", "no challenge has this token")
}

// AnswerTLS returns the key authorization for an identifier of the tls-alpn-01 responder. A handshake carries no token, so of several challenges for
// one name one is answered until it is over: the one that the CA has been told of, else the oldest. The self check of the others fails meanwhile.
func (a *App) AnswerTLS(ctx context.Context, identifier string) (string, error) {
	var best *Doc
	for after := ""; ; {
		page, err := a.Challenges.Find(ctx, docstore.Query{
			Where: []docstore.Cond{{Field: "identifier", Op: docstore.Eq, Value: identifier}}, Limit: 1000, After: after,
		})
		if err != nil {
			return "", err
		}
		for i, d := range page.Docs {
			if d.Body.Answers(domain.TLSALPN01) && (best == nil || d.Body.State == domain.Presented && best.Body.State != domain.Presented) {
				best = &page.Docs[i]
			}
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if best == nil {
		return "", errs.New(errs.NotFound, "", "no challenge is for this name")
	}
	return best.Body.Value, nil
}

// Tidy removes challenges that were cleaned and routes that were deleted a week ago, and old marks of closed orders and requests, once.
func (a *App) Tidy(ctx context.Context) error {
	now := a.Clock.Now()
	err := a.Challenges.RemoveAll(ctx, docstore.Cond{Field: "state", Op: docstore.Eq, Value: string(domain.Cleaned)},
		docstore.Cond{Field: "changed_at", Op: docstore.Lt, Value: now.Add(-keepClosed)})
	if err != nil {
		return err
	}
	err = a.Routes.RemoveAll(ctx, docstore.Cond{Field: "tombstone", Op: docstore.Eq, Value: true},
		docstore.Cond{Field: "changed_at", Op: docstore.Lt, Value: now.Add(-keepClosed)})
	if err != nil {
		return err
	}
	if err := a.Requests.Sweep(ctx); err != nil {
		return err
	}
	return a.Orders.RemoveAll(ctx, docstore.Cond{Field: "due_at", Op: docstore.Lte, Value: now})
}
