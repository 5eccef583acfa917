package gateway

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"time"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

const (
	// tokenTTL is how long a token's holder is remembered, and so how long a revoked token may still work.
	tokenTTL = 5 * time.Second
	// maxTokens bounds how many are remembered.
	maxTokens = 4096
	// maxTokenLength bounds what is looked at, in bytes.
	maxTokenLength = 512
	// askTimeout is how long identity may take.
	askTimeout = 5 * time.Second
)

// authenticator finds out whose a bearer token is. It keeps hashes of tokens only, for tokenTTL.
type authenticator struct {
	identity identityv1.IdentityServiceClient
	clk      clock.Clock

	mu    sync.Mutex
	known map[[sha256.Size]byte]holder
}

type holder struct {
	principal authz.Principal
	until     time.Time
}

func newAuthenticator(identity identityv1.IdentityServiceClient, clk clock.Clock) *authenticator {
	return &authenticator{identity: identity, clk: clk, known: map[[sha256.Size]byte]holder{}}
}

// of returns the principal of a request: Unauthenticated TOKEN_MISSING or TOKEN_INVALID, or Unavailable IDENTITY_UNAVAILABLE.
func (a *authenticator) of(ctx context.Context, h http.Header) (authz.Principal, error) {
	given := h.Values("Authorization")
	if len(given) == 0 {
		return authz.Principal{}, errs.New(errs.Unauthenticated, authz.ReasonTokenMissing, "an API token is wanted; send the header Authorization: Bearer cwt_…, or use certwright login")
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	token = strings.TrimSpace(token)
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxTokenLength {
		return authz.Principal{}, errs.New(errs.Unauthenticated, authz.ReasonTokenInvalid, "the header Authorization is not of the form Bearer cwt_…")
	}
	key := sha256.Sum256([]byte(token))
	if p, ok := a.remembered(key); ok {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(authz.AsService(ctx), askTimeout)
	defer cancel()
	resp, err := a.identity.Authenticate(ctx, &identityv1.AuthenticateRequest{Token: token})
	switch errs.KindOf(err) {
	case errs.Unauthenticated, errs.Canceled:
		return authz.Principal{}, err
	case errs.Unavailable, errs.Timeout:
		return authz.Principal{}, errs.New(errs.Unavailable, "IDENTITY_UNAVAILABLE", "tokens cannot be checked right now, because the identity service does not answer").WithRetryAfter(2 * time.Second)
	default:
		if err != nil {
			return authz.Principal{}, errs.New(errs.Internal, "", "identity refuses to check a token: %w", err)
		}
	}
	t := resp.GetToken()
	p := authz.Principal{Subject: "token:" + t.GetId(), Name: t.GetDisplayName(), Team: t.GetTeam(), Permissions: t.GetPermissions()}
	until := a.clk.Now().Add(tokenTTL)
	if end := t.GetExpireTime(); end != nil && end.AsTime().Before(until) {
		until = end.AsTime()
	}
	a.remember(key, holder{p, until})
	return p, nil
}

func (a *authenticator) remembered(key [sha256.Size]byte) (authz.Principal, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.known[key]
	if !ok || !a.clk.Now().Before(h.until) {
		delete(a.known, key)
		return authz.Principal{}, false
	}
	return h.principal, true
}

func (a *authenticator) remember(key [sha256.Size]byte, h holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxTokens {
		now := a.clk.Now()
		for k, old := range a.known {
			if !now.Before(old.until) {
				delete(a.known, k)
			}
		}
		if len(a.known) >= maxTokens {
			clear(a.known)
		}
	}
	a.known[key] = h
}
