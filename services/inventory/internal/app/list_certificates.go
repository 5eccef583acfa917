package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/services/inventory/internal/names"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/heal"
	"github.com/certwright/certwright/shared/listing"
)

// ListCertificates returns the certificates that the caller may see and the filter names. Invalid/BAD_FILTER when the filter is not understood, FILTER_TOO_BROAD when it
// would look at too many.
func (a *App) ListCertificates(ctx context.Context, filter string, size int32, token string) (docstore.Page[domain.Certificate], error) {
	var none docstore.Page[domain.Certificate]
	who, err := authz.Require(ctx)
	if err != nil {
		return none, err
	}
	q, err := query(who, filter, a.Clock.Now())
	if err != nil {
		return none, err
	}
	if q.Limit, err = listing.Size(size); err != nil {
		return none, err
	}
	q.After = token
	return a.Certs.Find(ctx, q)
}

// query turns a filter into one on the indexes: one tag or one range of dates is looked up, the rest is applied to what is found.
func query(who authz.Principal, filter string, now time.Time) (docstore.Query, error) {
	var q docstore.Query
	terms, err := parse(filter)
	if err != nil {
		return q, err
	}
	var tags []string
	var dates, rest []docstore.Cond
	alive := docstore.Cond{Field: "tombstone", Op: docstore.Eq, Value: false}
	after := docstore.Cond{Field: "not_after", Op: docstore.Gte, Value: now}
	for _, t := range terms {
		switch t.name {
		case "name":
			tags = append(tags, "name="+nameOf(t.value))
		case "owner":
			tags = append(tags, "owner="+strings.ToLower(t.value))
		case "team", "issuer", "label":
			tags = append(tags, t.name+"="+t.value)
		case "expires_before":
			at, err := time.Parse(time.RFC3339, t.value)
			if err != nil {
				return q, errs.New(errs.Invalid, "BAD_FILTER", "expires_before is %q; allowed is a moment such as 2027-01-31T00:00:00Z", t.value)
			}
			dates = append(dates, docstore.Cond{Field: "not_after", Op: docstore.Lt, Value: at})
		case "state":
			switch t.value {
			case domain.StatePending:
				dates = append(dates, docstore.Cond{Field: "not_after", Op: docstore.Gte, Value: domain.Never})
			case domain.StateActive:
				dates = append(dates, after, docstore.Cond{Field: "not_after", Op: docstore.Lt, Value: domain.Never})
				rest = append(rest, docstore.Cond{Field: "current_revoked", Op: docstore.Eq, Value: false})
			case domain.StateExpired:
				dates = append(dates, docstore.Cond{Field: "not_after", Op: docstore.Lt, Value: now})
				rest = append(rest, docstore.Cond{Field: "current_revoked", Op: docstore.Eq, Value: false})
			case domain.StateRevoked:
				rest = append(rest, docstore.Cond{Field: "current_revoked", Op: docstore.Eq, Value: true})
			case domain.StateDeleted:
				alive.Value = true
			default:
				return q, errs.New(errs.Invalid, "BAD_FILTER", "state is %q; allowed: pending, active, expired, revoked, deleted", t.value)
			}
		}
	}
	if who.Team != authz.AllTeams {
		team := authz.TeamOf(who)
		rest = append(rest, docstore.Cond{Field: "team", Op: docstore.Eq, Value: team})
		if len(tags) == 0 && alive.Value == false {
			tags = append(tags, "team="+team)
		}
	}
	q.Filter = append(rest, alive)
	revoked := docstore.Cond{Field: "current_revoked", Op: docstore.Eq, Value: true}
	switch {
	case alive.Value == true: // tombstones have no tags and no dates
		q.Where = []docstore.Cond{{Field: "deleted_at", Op: docstore.Lt, Value: domain.Never}}
		for _, t := range tags {
			if !strings.HasPrefix(t, "team=") {
				return q, errs.New(errs.Invalid, "BAD_FILTER", "deleted certificates can be filtered by team only")
			}
			q.Filter = append(q.Filter, docstore.Cond{Field: "team", Op: docstore.Eq, Value: strings.TrimPrefix(t, "team=")})
		}
		q.Filter = append(q.Filter, dates...)
	case len(tags) > 0:
		best := narrowest(tags)
		q.Where = append([]docstore.Cond{{Field: "tags", Op: docstore.Has, Value: best}}, bounds(dates)...)
		for _, t := range tags {
			if t != best {
				q.Filter = append(q.Filter, docstore.Cond{Field: "tags", Op: docstore.Has, Value: t})
			}
		}
	case slices.Contains(q.Filter, revoked):
		q.Where = []docstore.Cond{revoked}
		q.Filter = append(slices.DeleteFunc(q.Filter, func(c docstore.Cond) bool { return c == revoked }), dates...)
	default:
		q.Where = bounds(dates)
	}
	return q, nil
}

// narrowest is the tag that likely has the fewest certificates.
func narrowest(tags []string) string {
	for _, prefix := range []string{"name=", "label=", "owner=", "issuer="} {
		for _, t := range tags {
			if strings.HasPrefix(t, prefix) {
				return t
			}
		}
	}
	return tags[0]
}

// bounds merges conditions on not_after into one range: the latest lower and the earliest upper end.
func bounds(dates []docstore.Cond) []docstore.Cond {
	var low, high *docstore.Cond
	for i := range dates {
		c := &dates[i]
		at, _ := c.Value.(time.Time)
		switch {
		case c.Op == docstore.Gte && (low == nil || low.Value.(time.Time).Before(at)): //nolint:forcetypeassert // made above
			low = c
		case c.Op == docstore.Lt && (high == nil || at.Before(high.Value.(time.Time))): //nolint:forcetypeassert // made above
			high = c
		}
	}
	var out []docstore.Cond
	if low != nil {
		out = append(out, *low)
	}
	if high != nil {
		out = append(out, *high)
	}
	return out
}

type term struct{ name, value string }

// parse reads a filter. Unlike other fields, label may come several times.
func parse(filter string) ([]term, error) {
	var plain []string
	var terms []term
	for _, t := range listing.Split(filter) {
		if l, ok := strings.CutPrefix(strings.TrimSpace(t), "label="); ok {
			l = strings.Trim(strings.TrimSpace(l), `"`)
			if key, _, ok := strings.Cut(l, "="); !ok || key == "" {
				return nil, errs.New(errs.Invalid, "BAD_FILTER", "label is %q; allowed is label=key=value", l)
			}
			terms = append(terms, term{"label", l})
		} else if strings.TrimSpace(t) != "" {
			plain = append(plain, t)
		}
	}
	fields, err := listing.Filter(strings.Join(plain, " AND "), "owner", "team", "issuer", "name", "label", "state", "expires_before")
	if err != nil {
		return nil, err
	}
	for name, value := range fields {
		terms = append(terms, term{name, value})
	}
	slices.SortFunc(terms, func(a, b term) int { return strings.Compare(a.name+"="+a.value, b.name+"="+b.value) })
	return terms, nil
}

// nameOf is the canonical form of a name searched for, or the name as given when it is none.
func nameOf(given string) string {
	if c, wrong := names.Canonical("name", []string{given}, names.Options{IPs: true}); len(wrong) == 0 {
		return c[0]
	}
	return strings.ToLower(given)
}

// GetCertificate returns a certificate that the caller may see, as a tombstone too.
func (a *App) GetCertificate(ctx context.Context, certificate string) (Certificate, error) {
	return a.visible(ctx, certificate)
}

// GetVersion loads a certificate that the caller may see and one of its versions, by default the current one.
func (a *App) GetVersion(ctx context.Context, certificate, version string) (Certificate, Version, error) {
	doc, err := a.visible(ctx, certificate)
	if err != nil {
		return doc, Version{}, err
	}
	if version == "" {
		if doc.Body.Current == nil {
			return doc, Version{}, errs.New(errs.Precondition, "NO_VERSION", "certificate %s has no version yet", certificate)
		}
		version = doc.Body.Current.VersionID
	}
	v, err := a.Versions.Get(ctx, version)
	if isNotFound(err) || err == nil && v.Body.CertificateID != certificate {
		return doc, v, errs.New(errs.NotFound, "", "certificate %s has no version %s", certificate, version)
	}
	if err != nil {
		return doc, v, err
	}
	if state, _ := doc.Body.VersionState(v.Body); state == "" {
		return doc, v, errs.New(errs.NotFound, "", "certificate %s has no version %s yet", certificate, version)
	}
	return doc, v, nil
}

// FindVersion returns a version by its id alone, with its certificate.
func (a *App) FindVersion(ctx context.Context, version string) (Certificate, Version, error) {
	v, err := a.Versions.Get(ctx, version)
	if isNotFound(err) {
		return Certificate{}, v, errs.New(errs.NotFound, "", "version %s does not exist", version)
	}
	if err != nil {
		return Certificate{}, v, err
	}
	return a.GetVersion(ctx, v.Body.CertificateID, version)
}

// ListVersions returns the versions of a certificate, newest first.
func (a *App) ListVersions(ctx context.Context, certificate string, size int32, token string) (Certificate, docstore.Page[domain.Version], error) {
	var none docstore.Page[domain.Version]
	doc, err := a.visible(ctx, certificate)
	if err != nil {
		return doc, none, err
	}
	limit, err := listing.Size(size)
	if err != nil {
		return doc, none, err
	}
	page, err := a.Versions.Find(ctx, docstore.Query{
		Where: []docstore.Cond{{Field: "certificate_id", Op: docstore.Eq, Value: certificate}}, Desc: true, Limit: limit, After: token,
	})
	if err != nil {
		return doc, none, fmt.Errorf("versions of %s: %w", certificate, err)
	}
	page.Docs = slices.DeleteFunc(page.Docs, func(v Version) bool {
		state, _ := doc.Body.VersionState(v.Body)
		return state == ""
	})
	return doc, page, nil
}

// Changes is one page of what changed.
type Changes struct {
	Docs            []Certificate
	Next            string
	More, Restarted bool
}

// ListChanges returns what changed after the cursor, for projections; a person sees those of their own team.
func (a *App) ListChanges(ctx context.Context, cursor string, size int32) (Changes, error) {
	who, err := authz.Require(ctx)
	if err != nil {
		return Changes{}, err
	}
	var c Changes
	c.Docs, c.Next, c.More, c.Restarted, err = heal.Changes(ctx, a.Certs, a.Epoch, cursor, int(size))
	c.Docs = slices.DeleteFunc(c.Docs, func(d Certificate) bool { return !authz.InTeam(who, d.Team) })
	return c, err
}
