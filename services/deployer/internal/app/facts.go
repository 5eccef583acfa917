package app

import (
	"cmp"
	"context"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/heal"
)

// VersionCurrent makes a version the wanted one of every binding of its certificate, unless a newer one is. Told again it changes nothing.
func (a *App) VersionCurrent(ctx context.Context, certificateID, team, versionID string, number int64) error {
	if certificateID == "" || versionID == "" {
		return nil
	}
	return each(ctx, a.Bindings, func(d bindingDoc) error {
		if d.Team != cmp.Or(team, authz.DefaultTeam) {
			return nil
		}
		_, err := a.changeBinding(ctx, d.ID, func(b *domain.Binding, now time.Time) bool { return b.Desire(versionID, number, now) })
		return ignoreNotFound(err)
	}, eq("certificate_id", certificateID))
}

// VersionRevoked ends the open deployments of a revoked version.
func (a *App) VersionRevoked(ctx context.Context, versionID string) error {
	if versionID == "" {
		return nil
	}
	return each(ctx, a.Deployments, func(d deploymentDoc) error {
		return a.supersede(ctx, d.ID, domain.Problem{Reason: "DEPLOY_VERSION_NOT_DEPLOYABLE", Detail: "the version " + versionID + " was revoked"})
	}, eq("version_id", versionID), eq("open", true))
}

// CertificateDeleted detaches the bindings of a certificate; the files on the hosts stay.
func (a *App) CertificateDeleted(ctx context.Context, certificateID string) error {
	if certificateID == "" {
		return nil
	}
	return each(ctx, a.Bindings, func(d bindingDoc) error { return a.detach(ctx, d.ID, domain.CertificateDeleted) }, eq("certificate_id", certificateID))
}

// ReadCertificates reads what changed at inventory since the cursor: a binding whose version is older than the current one gets its deployment even if the bus
// lost the fact.
func (a *App) ReadCertificates(ctx context.Context, cursor string) (heal.Page, error) {
	res, err := a.Inventory.ListChanges(ctx, &inventoryv1.ListChangesRequest{AfterCursor: cursor, PageSize: 500})
	if err != nil {
		return heal.Page{}, err
	}
	for _, change := range res.GetChanges() {
		c := change.GetCertificate()
		v := c.GetCurrentVersion()
		switch {
		case change.GetDeleted():
			err = a.CertificateDeleted(ctx, c.GetId())
		case v.GetState() == "current":
			err = a.VersionCurrent(ctx, c.GetId(), c.GetTeam(), v.GetFacts().GetVersionId(), v.GetFacts().GetNumber())
		}
		if err != nil {
			return heal.Page{}, err
		}
	}
	return heal.Page{Next: res.GetNextCursor(), More: res.GetMore(), Restarted: res.GetRestarted()}, nil
}
