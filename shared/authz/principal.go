// Package authz says who calls and whether they may: a signed principal that travels with each call, and interceptors that let the owner of a
// method enforce the rule that the method declares in its proto (certwright.options.v1.rule).
//
// The gateway authenticates people and tokens and signs the principal; services forward it unchanged. A service's own calls carry its own
// identity: its client certificate, or in one process a principal signed by the composition.
package authz

import (
	"context"
	"slices"
	"strings"

	"github.com/certwright/certwright/shared/errs"
)

// DefaultTeam is the team of everything for which none is named.
const DefaultTeam = "default"

// AllTeams is the Team of a principal that sees every team's aggregates.
const AllTeams = "*"

// Reasons of refusals.
const (
	ReasonTokenMissing = "TOKEN_MISSING"     // Unauthenticated: the call names nobody
	ReasonTokenInvalid = "TOKEN_INVALID"     //nolint:gosec // Unauthenticated: not signed by a key that is trusted here, or not for us
	ReasonTokenExpired = "TOKEN_EXPIRED"     // Unauthenticated: signed too long ago
	ReasonDenied       = "PERMISSION_DENIED" // Forbidden: known, but not allowed
	ReasonNoRule       = "RULE_MISSING"      // Forbidden: the method declares no rule, so nobody may call it
)

// Principal is who calls. The zero value is nobody.
type Principal struct {
	Subject     string   `json:"sub"`            // "token:tok_01J…", "user:usr_01J…" or "service:orders"; what the audit trail records
	Name        string   `json:"name,omitempty"` // for people to read
	Team        string   `json:"team,omitempty"` // AllTeams for all; empty means DefaultTeam
	Permissions []string `json:"perms,omitempty"`
	Service     string   `json:"svc,omitempty"` // the name of a sibling service, else empty
	Fingerprint string   `json:"fpr,omitempty"` // SHA-256 of the client certificate that the edge verified, hex; agents only
}

// ForService is the principal of a service's own calls.
func ForService(name string) Principal {
	return Principal{Subject: "service:" + name, Name: name, Team: AllTeams, Service: name}
}

// IsZero reports whether p is nobody.
func (p Principal) IsZero() bool { return p.Subject == "" }

// Has reports whether p has the permission wanted ("certificates.request"): by its name, as "certificates.*", or by "*".
func (p Principal) Has(wanted string) bool {
	return slices.ContainsFunc(p.Permissions, func(has string) bool {
		if prefix, ok := strings.CutSuffix(has, "*"); ok && (prefix == "" || strings.HasSuffix(prefix, ".")) {
			return wanted != "" && strings.HasPrefix(wanted, prefix)
		}
		return has != "" && has == wanted
	})
}

// InTeam reports whether p may see what belongs to team. Empty means DefaultTeam on both sides.
func InTeam(p Principal, team string) bool {
	if team == "" {
		team = DefaultTeam
	}
	return !p.IsZero() && (p.Team == AllTeams || TeamOf(p) == team)
}

// TeamOf is the team that what p creates belongs to, unless p says otherwise: its own, or DefaultTeam when it has none or all.
func TeamOf(p Principal) string {
	if p.Team == "" || p.Team == AllTeams {
		return DefaultTeam
	}
	return p.Team
}

// Scope is the team whose things a list for p has: its own, or "" for every team's.
func Scope(p Principal) string {
	if p.Team == AllTeams {
		return ""
	}
	return TeamOf(p)
}

type ctxKey struct{}

// caller is a principal and the token it came in, which is forwarded as it is.
type caller struct {
	Principal
	token string
}

// NewContext returns ctx with p as the one on whose behalf everything below is done.
func NewContext(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, ctxKey{}, caller{Principal: p})
}

// FromContext returns the principal on whose behalf ctx is, if any.
func FromContext(ctx context.Context) (Principal, bool) {
	c, ok := ctx.Value(ctxKey{}).(caller)
	return c.Principal, ok && !c.IsZero()
}

// AsService returns ctx without a principal: calls made with it are the service's own, e.g. to a method that only services may call,
// in the course of a user's request that has been authorized already.
func AsService(ctx context.Context) context.Context {
	return context.WithValue(ctx, ctxKey{}, caller{})
}

// Require returns the principal in ctx, or Unauthenticated TOKEN_MISSING.
func Require(ctx context.Context) (Principal, error) {
	p, ok := FromContext(ctx)
	if !ok {
		return Principal{}, errMissing()
	}
	return p, nil
}

// RequireTeam is NotFound, as if the thing were not there, unless the principal in ctx may see what belongs to team. what names the thing, e.g.
// "certificate crt_01J…".
func RequireTeam(ctx context.Context, team, what string) error {
	p, err := Require(ctx)
	if err != nil {
		return err
	}
	if !InTeam(p, team) {
		return errs.New(errs.NotFound, "", "%s does not exist", what)
	}
	return nil
}

func errMissing() error {
	return errs.New(errs.Unauthenticated, ReasonTokenMissing, "the call names nobody; give an API token (certwright login, or the header Authorization: Bearer …)")
}
