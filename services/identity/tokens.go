package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
)

const (
	// secretPrefix begins every token's secret, so that scanners of leaked secrets know one.
	secretPrefix = "cwt_"
	secretBytes  = 32
	secretLength = len(secretPrefix) + 43 // 32 bytes in base64url without padding

	maxNameLength  = 100
	maxPermissions = 100
	maxTeamLength  = 64
)

// token is what is stored of an API token. The holder's team is the document's.
type token struct {
	DisplayName string    `bson:"display_name"`
	Permissions []string  `bson:"permissions"`
	Hash        string    `bson:"hash"` // SHA-256 of the secret, hex
	Last4       string    `bson:"last4"`
	ExpiresAt   time.Time `bson:"expires_at"` // clock.Never for none
	Revoked     bool      `bson:"revoked"`
}

// server implements the calls of the contract.
type server struct {
	identityv1.UnimplementedIdentityServiceServer
	tokens   *outbox.Collection[token]
	audit    *outbox.Collection[auditEntry]
	requests *once.Requests
	clk      clock.Clock
	logger   *slog.Logger
}

func newSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails: the program ends when there is no randomness
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// wellFormed reports whether s can be a secret at all.
func wellFormed(s string) bool {
	rest, ok := strings.CutPrefix(s, secretPrefix)
	if !ok || len(s) != secretLength {
		return false
	}
	_, err := base64.RawURLEncoding.DecodeString(rest)
	return err == nil
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// byHash finds the token of a secret. NotFound when there is none. The secret is compared by its hash in an index: what the time tells is about a
// hash of the guess, which helps nobody to a better one.
func (s *server) byHash(ctx context.Context, hash string) (docstore.Doc[token], error) {
	page, err := s.tokens.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "hash", Op: docstore.Eq, Value: hash}}, Limit: 1})
	if err != nil {
		return docstore.Doc[token]{}, err
	}
	if len(page.Docs) == 0 {
		return docstore.Doc[token]{}, errs.New(errs.NotFound, "TOKEN_UNKNOWN", "the token is not known")
	}
	return page.Docs[0], nil
}

// Authenticate implements the RPC: Unauthenticated TOKEN_INVALID for a token that is unknown, expired or revoked.
func (s *server) Authenticate(ctx context.Context, r *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	if !wellFormed(r.GetToken()) {
		return nil, invalid("this is not an API token of Certwright: one begins with %s and has %d characters", secretPrefix, secretLength)
	}
	doc, err := s.byHash(ctx, hashOf(r.GetToken()))
	switch {
	case errs.KindOf(err) == errs.NotFound:
		return nil, invalid("the token is not known here; ask an administrator for one of this installation, or log in again with certwright login")
	case err != nil:
		return nil, err
	case doc.Body.Revoked:
		return nil, invalid("the token %s (%q) was revoked; ask an administrator for a new one", doc.ID, doc.Body.DisplayName)
	case doc.Body.expired(s.clk.Now()):
		return nil, invalid("the token %s (%q) expired at %s; make a new one with POST /v1/tokens", doc.ID, doc.Body.DisplayName, doc.Body.ExpiresAt.Format(time.RFC3339))
	}
	return &identityv1.AuthenticateResponse{Token: message(doc)}, nil
}

func invalid(format string, args ...any) error {
	return errs.New(errs.Unauthenticated, authz.ReasonTokenInvalid, format, args...)
}

func (t token) expired(now time.Time) bool { return !now.Before(t.ExpiresAt) }

// administrates reports whether d lets its holder do everything, now.
func administrates(d docstore.Doc[token], now time.Time) bool {
	p := authz.Principal{Subject: "token:" + d.ID, Team: d.Team, Permissions: d.Body.Permissions}
	return !d.Body.Revoked && !d.Body.expired(now) && p.Team == authz.AllTeams && p.Has("*")
}

// CreateToken implements the RPC. The secret is in the answer to the call that made the token and nowhere else: a repeat with the same requestId answers
// the token without it, since it is not stored.
func (s *server) CreateToken(ctx context.Context, r *identityv1.CreateTokenRequest) (*identityv1.CreateTokenResponse, error) {
	caller, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := s.newToken(caller, r.GetToken())
	if err != nil {
		return nil, err
	}
	id, err := s.requests.ID(ctx, caller.Subject, identityv1.IdentityService_CreateToken_FullMethodName, r.GetRequestId(), "tok", r)
	if err != nil {
		return nil, err
	}
	secret := newSecret()
	doc.ID, doc.Body.Hash, doc.Body.Last4 = id, hashOf(secret), secret[len(secret)-4:]
	err = s.tokens.Insert(ctx, &doc)
	if errs.KindOf(err) == errs.AlreadyExists {
		doc, err = s.tokens.Get(ctx, id)
		secret = ""
	}
	if err != nil {
		return nil, err
	}
	return &identityv1.CreateTokenResponse{Token: message(doc), Secret: secret}, nil
}

// newToken checks what is asked for against what the caller has: nobody gives away what they do not have.
func (s *server) newToken(caller authz.Principal, t *identityv1.Token) (docstore.Doc[token], error) {
	doc := docstore.Doc[token]{
		Meta: docstore.Meta{Team: cmp.Or(t.GetTeam(), caller.Team, authz.DefaultTeam)},
		Body: token{DisplayName: strings.TrimSpace(t.GetDisplayName()), Permissions: t.GetPermissions(), ExpiresAt: clock.Never},
	}
	e := errs.New(errs.Invalid, "INVALID_ARGUMENT", "the token cannot be made like this")
	if n := utf8.RuneCountInString(doc.Body.DisplayName); n == 0 || n > maxNameLength {
		e = e.WithField("token.displayName", "%d characters given, 1 to %d allowed; say what the token is for, such as \"ci\"", n, maxNameLength)
	}
	if doc.Team != authz.AllTeams && (len(doc.Team) > maxTeamLength || !teamName.MatchString(doc.Team)) {
		e = e.WithField("token.team", "%q given; allowed is \"*\" for all teams, or up to %d letters, digits, '.', '_' and '-'", doc.Team, maxTeamLength)
	}
	if n := len(doc.Body.Permissions); n == 0 || n > maxPermissions {
		e = e.WithField("token.permissions", "%d given, 1 to %d allowed; one is \"certificates.read\", a family \"certificates.*\", everything \"*\"", n, maxPermissions)
	}
	for i, p := range doc.Body.Permissions {
		if problem := checkPermission(p); problem != "" {
			e = e.WithField(field("token.permissions", i), "%q given; %s", p, problem)
		}
	}
	if t.GetExpireTime() != nil {
		doc.Body.ExpiresAt = clock.Normal(t.GetExpireTime().AsTime())
		if err := t.GetExpireTime().CheckValid(); err != nil || doc.Body.expired(s.clk.Now()) {
			e = e.WithField("token.expireTime", "%s given, which is past; give a time to come, or none for a token that does not expire", doc.Body.ExpiresAt.Format(time.RFC3339))
		}
	}
	if len(e.Fields) > 0 {
		return doc, e
	}
	if !authz.InTeam(caller, doc.Team) {
		return doc, errs.New(errs.Forbidden, authz.ReasonDenied, "a token for the team %q can be made only by who belongs to it; you belong to %q", doc.Team, authz.TeamOf(caller))
	}
	for i, p := range doc.Body.Permissions {
		if !caller.Has(p) {
			return doc, errs.New(errs.Forbidden, "PERMISSION_NOT_HELD", "a token can be given only permissions that its maker has").
				WithField(field("token.permissions", i), "%q given; you have: %s", p, strings.Join(caller.Permissions, ", "))
		}
	}
	return doc, nil
}

// ListTokens implements the RPC: the tokens that the caller's team has, or all.
func (s *server) ListTokens(ctx context.Context, r *identityv1.ListTokensRequest) (*identityv1.ListTokensResponse, error) {
	caller, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	size, err := listing.Size(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	page, err := s.tokens.Find(ctx, listing.By(docstore.Query{Limit: size, After: r.GetPageToken()}, listing.Term{"team", authz.Scope(caller)}))
	if err != nil {
		return nil, err
	}
	return &identityv1.ListTokensResponse{Tokens: listing.Rows(page.Docs, message), NextPageToken: page.Next}, nil
}

// RevokeToken implements the RPC. It works at once here, and within five seconds at every edge, which is how long an edge remembers a holder.
func (s *server) RevokeToken(ctx context.Context, r *identityv1.RevokeTokenRequest) (*identityv1.Token, error) {
	caller, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := s.tokens.Get(ctx, r.GetId())
	switch {
	case errs.KindOf(err) == errs.NotFound, err == nil && !authz.InTeam(caller, doc.Team):
		return nil, errs.New(errs.NotFound, "", "token %s does not exist", r.GetId())
	case err != nil:
		return nil, err
	}
	if administrates(doc, s.clk.Now()) {
		if err := s.anotherAdmin(ctx, doc.ID); err != nil {
			return nil, err
		}
	}
	doc, err = s.tokens.Change(ctx, doc.ID, func(d *docstore.Doc[token]) ([]outbox.Fact, error) {
		if d.Body.Revoked {
			return nil, outbox.ErrUnchanged
		}
		d.Body.Revoked = true
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return message(doc), nil
}

// anotherAdmin is Precondition LAST_ADMIN_TOKEN unless an administrator's token other than this one works.
func (s *server) anotherAdmin(ctx context.Context, except string) error {
	now := s.clk.Now()
	q := docstore.Query{Where: []docstore.Cond{{Field: "team", Op: docstore.Eq, Value: authz.AllTeams}}, Limit: 1000}
	for {
		page, err := s.tokens.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range page.Docs {
			if d.ID != except && administrates(d, now) {
				return nil
			}
		}
		if page.Next == "" {
			return errs.New(errs.Precondition, "LAST_ADMIN_TOKEN", "%s is the last token with every permission; make another one first, or nobody could administrate any more", except)
		}
		q.After = page.Next
	}
}

func message(d docstore.Doc[token]) *identityv1.Token {
	return &identityv1.Token{
		Id: d.ID, DisplayName: d.Body.DisplayName, Team: d.Team, Permissions: d.Body.Permissions, CreateTime: timestamppb.New(d.CreatedAt),
		Revoked: d.Body.Revoked, Last4: d.Body.Last4, ExpireTime: rpc.Stamp(d.Body.ExpiresAt),
	}
}
