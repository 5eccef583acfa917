package app

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// Create is the wish for a certificate. Body is the whole request, which a repeat of RequestID must equal.
type Create struct {
	RequestID   string
	Certificate Input
	DeployTo    []string
	Body        proto.Message
}

// CreateCertificate stores a certificate with its first intent open. A repeat answers the first result. AlreadyExists/CERTIFICATE_EXISTS for the same
// issuer and names, unless a duplicate is allowed.
func (a *App) CreateCertificate(ctx context.Context, c Create) (Certificate, error) {
	who, err := authz.Require(ctx)
	if err != nil {
		return Certificate{}, err
	}
	team := cmp.Or(c.Certificate.Team, authz.TeamOf(who))
	if !authz.InTeam(who, team) {
		return Certificate{}, errs.New(errs.Forbidden, "TEAM_FORBIDDEN", "team %q given, allowed: %q, your own", team, authz.TeamOf(who))
	}
	spec, err := check(command{Certificate: c.Certificate, DeployTo: c.DeployTo}, a.Clock.Now())
	if err != nil {
		return Certificate{}, err
	}
	certID, err := a.Requests.ID(ctx, who.Subject, "CreateCertificate", c.RequestID, "crt", c.Body)
	if err != nil {
		return Certificate{}, err
	}
	if c.RequestID != "" {
		if first, err := a.Certs.Get(ctx, certID); !isNotFound(err) {
			return first, err
		}
	}
	if spec.Issuer, err = a.issuer(ctx, spec.Issuer, team); err != nil {
		return Certificate{}, err
	}
	m := a.moment(ctx, certID)
	body := domain.Certificate{
		DisplayName: c.Certificate.DisplayName, Owner: cmp.Or(c.Certificate.Owner, who.Name, who.Subject), Labels: c.Certificate.Labels,
		AllowDuplicate: c.Certificate.AllowDuplicate, CreatedBy: who.Subject, Spec: spec,
	}
	for _, target := range c.DeployTo {
		body.DeployTo = append(body.DeployTo, domain.Pending{TargetID: target, NextAt: m.Now})
	}
	doc := Certificate{Meta: docstore.Meta{ID: certID, Team: team, Trace: m.Trace}}
	var out domain.Outcome
	doc.Body, out = domain.New(body, m)
	facts, _ := settle(&doc, out)
	err = a.Certs.Insert(ctx, &doc, facts...)
	if !isExists(err) {
		return doc, err
	}
	if first, err := a.Certs.Get(ctx, certID); !isNotFound(err) { // the same request, twice at once
		return first, err
	}
	return Certificate{}, a.exists(ctx, uniqueKey(spec), err)
}

// exists explains a clash of the unique key by naming the certificate that has it.
func (a *App) exists(ctx context.Context, key string, cause error) error {
	page, err := a.Certs.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "unique_key", Op: docstore.Eq, Value: key}}, Limit: 1})
	if err != nil {
		return err
	}
	if len(page.Docs) == 0 { // deleted in between
		return errs.New(errs.Conflict, "", "another certificate had the same issuer and names a moment ago; try again: %w", cause)
	}
	first := page.Docs[0]
	if authz.RequireTeam(ctx, first.Team, "certificate") != nil {
		return errs.New(errs.AlreadyExists, "CERTIFICATE_EXISTS",
			"another team has a certificate of this issuer with exactly these names; set allowDuplicate to have a second one")
	}
	return errs.New(errs.AlreadyExists, "CERTIFICATE_EXISTS",
		"certificate %s of this issuer has exactly these names; renew that one, or set allowDuplicate to have a second one", first.ID).
		WithMeta("first", first.ID)
}
