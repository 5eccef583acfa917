package app

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
)

// Caller is who asks: which team its things belong to and which it sees.
type Caller struct {
	Subject string
	Team    string // of what it makes
	All     bool   // it sees every team
}

func (c Caller) sees(team string) bool { return c.All || c.Team == team }

// scope is the team whose things the caller lists, "" for all.
func (c Caller) scope() string {
	if c.All {
		return ""
	}
	return c.Team
}

// CreateTarget stores a target that its host allows. body is the request, by which a repeat of requestID is known.
func (a *App) CreateTarget(ctx context.Context, who Caller, requestID string, body proto.Message, t domain.Target) (docstore.Doc[domain.Target], error) {
	if err := t.Validate(); err != nil {
		return targetDoc{}, err
	}
	host, err := a.Hosts.Host(t.File.Host)
	if err != nil {
		return targetDoc{}, err
	}
	if err := host.Check(t.File); err != nil {
		return targetDoc{}, err
	}
	id, err := a.Requests.ID(ctx, who.Subject, "CreateTarget", requestID, "tgt", body)
	if err != nil {
		return targetDoc{}, err
	}
	t.ForgetAt = domain.Never
	d := targetDoc{Meta: docstore.Meta{ID: id, Team: who.Team}, Body: t}
	if err = a.Targets.Insert(ctx, &d); errs.KindOf(err) == errs.AlreadyExists {
		return a.Targets.Get(ctx, id)
	}
	return d, err
}

// Target returns a target that the caller sees; NotFound otherwise.
func (a *App) Target(ctx context.Context, who Caller, id string) (docstore.Doc[domain.Target], error) {
	d, err := a.Targets.Get(ctx, id)
	if err == nil && (d.Tombstone || !who.sees(d.Team)) || errs.KindOf(err) == errs.NotFound {
		return targetDoc{}, errs.New(errs.NotFound, "TARGET_NOT_FOUND", "there is no target %q", id)
	}
	return d, err
}

// ListTargets returns a page of targets by id.
func (a *App) ListTargets(ctx context.Context, who Caller, size int32, after string) (docstore.Page[domain.Target], error) {
	limit, err := listing.Size(size)
	if err != nil {
		return docstore.Page[domain.Target]{}, err
	}
	q := docstore.Query{Limit: limit, After: after, Filter: []docstore.Cond{eq("tombstone", false)}}
	return a.Targets.Find(ctx, listing.By(q, listing.Term{"team", who.scope()}))
}

// DeleteTarget removes a target that nothing is bound to: Precondition TARGET_BOUND names the bindings otherwise.
func (a *App) DeleteTarget(ctx context.Context, who Caller, id string) error {
	if _, err := a.Target(ctx, who, id); err != nil {
		return err
	}
	if err := a.unbound(ctx, id); err != nil {
		return err
	}
	if err := a.markTarget(ctx, id, true); err != nil {
		return err
	}
	// A binding may have been made in between; whoever makes one looks at the target afterwards, too.
	if err := a.unbound(ctx, id); err != nil {
		if back := a.markTarget(ctx, id, false); back != nil {
			return back
		}
		return err
	}
	return nil
}

func (a *App) markTarget(ctx context.Context, id string, gone bool) error {
	_, err := a.Targets.Change(ctx, id, func(d *targetDoc) ([]outbox.Fact, error) {
		d.Tombstone, d.Body.ForgetAt = gone, domain.Never
		if gone {
			d.Body.ForgetAt = a.Clock.Now().Add(a.DetachedFor)
		}
		return nil, nil
	})
	return err
}

func (a *App) unbound(ctx context.Context, targetID string) error {
	page, err := a.Bindings.Find(ctx, docstore.Query{Where: []docstore.Cond{eq("target_id", targetID)}, Filter: []docstore.Cond{eq("attached", true)}, Limit: 10})
	if err != nil || len(page.Docs) == 0 {
		return err
	}
	b := page.Docs[0]
	return errs.New(errs.Precondition, "TARGET_BOUND", "the target serves the certificate %s (binding %s); delete the binding first", b.Body.CertificateID, b.ID)
}
