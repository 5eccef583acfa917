package app

import (
	"context"

	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// Deployment returns a deployment that the caller sees; NotFound otherwise.
func (a *App) Deployment(ctx context.Context, who Caller, id string) (docstore.Doc[domain.Deployment], error) {
	d, err := a.Deployments.Get(ctx, id)
	if err == nil && !who.sees(d.Team) || errs.KindOf(err) == errs.NotFound {
		return deploymentDoc{}, errs.New(errs.NotFound, "DEPLOYMENT_NOT_FOUND", "there is no deployment %q", id)
	}
	return d, err
}

// ListDeployments returns a page of deployments by id. filter takes binding, certificate, target and state.
func (a *App) ListDeployments(ctx context.Context, who Caller, filter string, size int32, after string) (docstore.Page[domain.Deployment], error) {
	q, err := query(who, filter, size, after, []string{"binding", "certificate", "target", "state"}, "binding_id", "certificate_id", "target_id", "state")
	if err != nil {
		return docstore.Page[domain.Deployment]{}, err
	}
	return a.Deployments.Find(ctx, q)
}

// RetryDeployment makes an open deployment due now. Precondition DEPLOYMENT_FINAL otherwise.
func (a *App) RetryDeployment(ctx context.Context, who Caller, id string) (docstore.Doc[domain.Deployment], error) {
	if _, err := a.Deployment(ctx, who, id); err != nil {
		return deploymentDoc{}, err
	}
	return a.Deployments.Change(ctx, id, func(d *deploymentDoc) ([]outbox.Fact, error) {
		if err := d.Body.Hurry(a.Clock.Now()); err != nil {
			return nil, err
		}
		return storedDeployment(d, nil), nil
	})
}
