package app

import (
	"cmp"
	"context"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// Bind is the wish for a binding.
type Bind struct {
	CertificateID, TargetID, Team, Owner string
}

// CreateBinding binds a certificate that the caller sees to a target that the caller sees.
func (a *App) CreateBinding(ctx context.Context, who Caller, certificateID, targetID string) (docstore.Doc[domain.Binding], error) {
	t, err := a.Target(ctx, who, targetID)
	if err != nil {
		return bindingDoc{}, err
	}
	// The question is this service's own: what the caller may see is judged below.
	c, err := a.Inventory.GetCertificate(authz.AsService(ctx), &inventoryv1.GetCertificateRequest{Id: certificateID})
	// Without this anybody could have the key of another team's certificate put on a host of theirs.
	if err == nil && (!who.sees(cmp.Or(c.GetTeam(), authz.DefaultTeam)) || c.GetState() == "deleted") || errs.KindOf(err) == errs.NotFound {
		return bindingDoc{}, errs.New(errs.NotFound, "CERTIFICATE_NOT_FOUND", "there is no certificate %q", certificateID)
	}
	if err != nil {
		return bindingDoc{}, err
	}
	if cmp.Or(c.GetTeam(), authz.DefaultTeam) != t.Team {
		return bindingDoc{}, otherTeam(certificateID, targetID)
	}
	return a.EnsureBinding(ctx, Bind{CertificateID: certificateID, TargetID: targetID, Team: t.Team, Owner: c.GetOwner()})
}

func otherTeam(certificateID, targetID string) error {
	return errs.New(errs.Precondition, "BINDING_OTHER_TEAM", "the certificate %s and the target %s belong to different teams; bind within one team", certificateID, targetID)
}

// EnsureBinding makes the binding at the first call and answers the same at every further one. Precondition TARGET_TAKEN when the target serves another
// certificate: its files hold one.
func (a *App) EnsureBinding(ctx context.Context, w Bind) (docstore.Doc[domain.Binding], error) {
	wrong := errs.New(errs.Invalid, "BINDING_INVALID", "a binding needs a certificate and a target")
	if w.CertificateID == "" {
		wrong = wrong.WithField("certificateId", "is empty; give the id of a certificate")
	}
	if w.TargetID == "" {
		wrong = wrong.WithField("targetId", "is empty; give the id of a target")
	}
	if len(wrong.Fields) > 0 {
		return bindingDoc{}, wrong
	}
	everybody := Caller{All: true}
	t, err := a.Target(ctx, everybody, w.TargetID)
	if err != nil {
		return bindingDoc{}, err
	}
	if t.Team != cmp.Or(w.Team, authz.DefaultTeam) {
		return bindingDoc{}, otherTeam(w.CertificateID, w.TargetID)
	}
	id := domain.BindingID(w.CertificateID, w.TargetID)
	d := bindingDoc{Meta: docstore.Meta{ID: id, Team: t.Team}, Body: domain.NewBinding(w.CertificateID, w.TargetID, w.Owner, a.Clock.Now())}
	storedBinding(&d)
	err = a.Bindings.Insert(ctx, &d)
	if errs.KindOf(err) == errs.AlreadyExists {
		d, err = a.changeBinding(ctx, id, func(b *domain.Binding, now time.Time) bool { return b.Attach(w.Owner, now) })
	}
	if kind := errs.KindOf(err); kind == errs.AlreadyExists || kind == errs.NotFound {
		return bindingDoc{}, a.taken(ctx, w.TargetID)
	}
	if err != nil {
		return bindingDoc{}, err
	}
	if _, err := a.Target(ctx, everybody, w.TargetID); err != nil { // deleted in between
		if detachErr := a.detach(ctx, id, domain.TargetDeleted); detachErr != nil {
			return bindingDoc{}, detachErr
		}
		return bindingDoc{}, err
	}
	return d, nil
}

func (a *App) taken(ctx context.Context, targetID string) error {
	page, err := a.Bindings.Find(ctx, docstore.Query{Where: []docstore.Cond{eq("slot", targetID)}, Limit: 1})
	if err != nil {
		return err
	}
	if len(page.Docs) == 0 {
		return errs.New(errs.Conflict, "TOO_BUSY", "the bindings of the target %s are being changed; try again", targetID)
	}
	b := page.Docs[0]
	return errs.New(errs.Precondition, "TARGET_TAKEN",
		"the target %s serves the certificate %s already (binding %s), and its files hold one; delete that binding, or make a target with other files", targetID, b.Body.CertificateID, b.ID)
}

// DeleteBinding detaches; the files on the host stay.
func (a *App) DeleteBinding(ctx context.Context, who Caller, id string) error {
	d, err := a.Bindings.Get(ctx, id)
	if err == nil && (!d.Body.Attached || !who.sees(d.Team)) || errs.KindOf(err) == errs.NotFound {
		return errs.New(errs.NotFound, "BINDING_NOT_FOUND", "there is no binding %q", id)
	}
	if err != nil {
		return err
	}
	return a.detach(ctx, id, domain.ByUser)
}

func (a *App) detach(ctx context.Context, id, reason string) error {
	_, err := a.changeBinding(ctx, id, func(b *domain.Binding, now time.Time) bool { return b.Detach(id, reason, now, now.Add(a.DetachedFor)) })
	return ignoreNotFound(err)
}

// ListBindings returns a page of attached bindings by id. filter takes certificate and target.
func (a *App) ListBindings(ctx context.Context, who Caller, filter string, size int32, after string) (docstore.Page[domain.Binding], error) {
	q, err := query(who, filter, size, after, []string{"certificate", "target"}, "certificate_id", "target_id")
	if err != nil {
		return docstore.Page[domain.Binding]{}, err
	}
	q.Filter = append(q.Filter, eq("attached", true))
	return a.Bindings.Find(ctx, q)
}

// query makes a query of a filter by terms. fields are those of the documents, in the order of allowed.
func query(who Caller, filter string, size int32, after string, allowed []string, fields ...string) (docstore.Query, error) {
	limit, err := listing.Size(size)
	if err != nil {
		return docstore.Query{}, err
	}
	given, err := listing.Filter(filter, allowed...)
	if err != nil {
		return docstore.Query{}, err
	}
	var terms []listing.Term
	for i, f := range fields {
		terms = append(terms, listing.Term{f, given[allowed[i]]})
	}
	return listing.By(docstore.Query{Limit: limit, After: after}, append(terms, listing.Term{"team", who.scope()})...), nil
}

// StepBinding is the worker's step of bindings: it makes the deployment of a new generation, ends older ones, and asks inventory for the current version
// of a new binding.
func (a *App) StepBinding(ctx context.Context, d docstore.Doc[domain.Binding]) (worker.Result[domain.Binding], error) {
	b := d.Body
	switch {
	case !b.Attached || b.Dispatch:
		if err := a.dispatch(ctx, d); err != nil {
			return worker.Result[domain.Binding]{}, err
		}
		return bound(func(d *bindingDoc) {
			if d.Body.Attached == b.Attached {
				d.Body.Dispatched(b.Generation)
			}
		}), nil
	case b.Resolve:
		return a.resolve(ctx, d)
	}
	return bound(func(*bindingDoc) {}), nil
}

// bound makes a result of a change.
func bound(f func(d *bindingDoc)) worker.Result[domain.Binding] {
	return worker.Result[domain.Binding]{Apply: func(d *bindingDoc) ([]outbox.Fact, error) {
		f(d)
		storedBinding(d)
		return nil, nil
	}}
}

// dispatch inserts the deployment of the binding's generation and ends those before it; of a detached binding it ends all.
func (a *App) dispatch(ctx context.Context, d bindingDoc) error {
	b, p := d.Body, domain.Problem{Detail: "a newer version is wanted"}
	if b.Attached {
		dep := deploymentDoc{Meta: docstore.Meta{ID: domain.DeploymentID(d.ID, b.Generation), Team: d.Team}, Body: domain.NewDeployment(d.ID, b, a.Clock.Now())}
		facts := storedDeployment(&dep, nil)
		if err := a.Deployments.Insert(ctx, &dep, facts...); err != nil && errs.KindOf(err) != errs.AlreadyExists {
			return err
		}
	} else {
		p = domain.Problem{Reason: "DEPLOY_DETACHED", Detail: "the binding was detached (" + b.DetachReason + "); the files on the host stay"}
	}
	return each(ctx, a.Deployments, func(old deploymentDoc) error {
		if b.Attached && old.Body.Generation >= b.Generation {
			return nil
		}
		return a.supersede(ctx, old.ID, p)
	}, eq("binding_id", d.ID), eq("open", true))
}

func (a *App) resolve(ctx context.Context, d bindingDoc) (worker.Result[domain.Binding], error) {
	var c *inventoryv1.Certificate
	err := worker.Call(ctx, "inventory.GetCertificate", func(ctx context.Context) (err error) {
		c, err = a.Inventory.GetCertificate(ctx, &inventoryv1.GetCertificateRequest{Id: d.Body.CertificateID})
		return err
	})
	if ignoreNotFound(err) != nil {
		return worker.Result[domain.Binding]{}, err
	}
	return bound(func(d *bindingDoc) {
		now := a.Clock.Now()
		d.Body.Resolved()
		switch v := c.GetCurrentVersion(); {
		case c == nil || c.GetState() == "deleted":
			d.Body.Detach(d.ID, domain.CertificateDeleted, now, now.Add(a.DetachedFor))
		case cmp.Or(c.GetTeam(), authz.DefaultTeam) != d.Team:
			d.Body.Detach(d.ID, domain.OtherTeam, now, now)
		case v.GetState() == "current":
			d.Body.Desire(v.GetFacts().GetVersionId(), v.GetFacts().GetNumber(), now)
		}
	}), nil
}
