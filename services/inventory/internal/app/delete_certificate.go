package app

import (
	"context"

	"github.com/certwright/certwright/services/inventory/internal/domain"
)

// DeleteCertificate makes a tombstone of the certificate and says what stays valid. Deleting twice changes nothing.
func (a *App) DeleteCertificate(ctx context.Context, certificate, etag string) (string, error) {
	if _, err := a.visible(ctx, certificate); err != nil {
		return "", err
	}
	notice := ""
	m := a.moment(ctx, certificate)
	_, err := a.change(ctx, m, func(doc *Certificate) (domain.Outcome, error) {
		if !doc.Body.Deleted() {
			if err := checkEtag(*doc, etag); err != nil {
				return domain.Outcome{}, err
			}
		}
		notice = doc.Body.Notice(m.Now)
		return doc.Body.Delete(m), nil
	})
	return notice, err
}
