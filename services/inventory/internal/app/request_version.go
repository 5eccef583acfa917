package app

import (
	"context"
	"regexp"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
)

var validCause = regexp.MustCompile(`^[a-z][a-z_]{0,31}$`)

// RequestVersion is the one door for everybody who wants a version: see domain.Certificate.RequestVersion.
func (a *App) RequestVersion(ctx context.Context, certificate string, ask domain.Ask) (domain.Answer, error) {
	who, err := authz.Require(ctx)
	if err != nil {
		return domain.Answer{}, err
	}
	ask.Person = who.Service == ""
	if ask.Cause == "" {
		ask.Cause = domain.CauseManual
	}
	if !validCause.MatchString(ask.Cause) {
		return domain.Answer{}, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the cause is not valid").
			WithField("cause", "%q given, allowed: a word such as manual, schedule, ari, retry or revocation", ask.Cause)
	}
	if _, err := a.visible(ctx, certificate); err != nil {
		return domain.Answer{}, err
	}
	var answer domain.Answer
	m := a.moment(ctx, certificate)
	_, err = a.change(ctx, m, func(doc *Certificate) (domain.Outcome, error) {
		var out domain.Outcome
		answer, out = doc.Body.RequestVersion(ask, m)
		return out, nil
	})
	return answer, err
}

// RenewCertificate is RequestVersion by a person, for the current version. A repeat of requestID answers with the order that the first call got, even when that has
// ended meanwhile. body is the whole request.
func (a *App) RenewCertificate(ctx context.Context, certificate, requestID string, body proto.Message) (domain.Answer, error) {
	ask := domain.Ask{Cause: domain.CauseManual}
	if requestID != "" {
		who, err := authz.Require(ctx)
		if err != nil {
			return domain.Answer{}, err
		}
		if _, err := a.visible(ctx, certificate); err != nil {
			return domain.Answer{}, err
		}
		first, err := a.Requests.ID(ctx, who.Subject, "RenewCertificate", requestID, "rnw", body)
		if err != nil {
			return domain.Answer{}, err
		}
		if u, err := ulid.Parse(first[len("rnw_"):]); err == nil {
			ask.AskedAt = time.UnixMilli(int64(u.Time())).UTC() //nolint:gosec // 48 bits
		}
	}
	return a.RequestVersion(ctx, certificate, ask)
}
