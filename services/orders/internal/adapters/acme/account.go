package acme

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	lego "github.com/go-acme/lego/v4/acme"
	jose "github.com/go-jose/go-jose/v4"

	"github.com/certwright/certwright/services/orders/internal/domain"
)

// Register makes the account of the key, or finds it when the CA has it already (RFC 8555 section 7.3). It returns the account URL.
func (c *Client) Register(ctx context.Context, a Account) (accountURL string, err error) {
	err = c.once(ctx, a.Issuer, a.Key, func(s *session) error {
		if p := a.Issuer.Unfit(meta(s)); p != nil {
			return &domain.Failure{Problem: *p}
		}
		req := lego.Account{TermsOfServiceAgreed: a.Issuer.TermsAgreed, Contact: mailto(a.Issuer.Contacts)}
		if a.EABKey.IsZero() {
			acc, err := s.core.Accounts.New(req)
			accountURL = acc.Location
			return err
		}
		key := a.EABKey.RevealBytes()
		defer clear(key)
		acc, err := s.core.Accounts.NewEAB(req, a.Issuer.EABKeyID, base64.RawURLEncoding.EncodeToString(key))
		accountURL = acc.Location
		return externalAccount(err, a.Issuer.EABKeyID)
	})
	return accountURL, err
}

// externalAccount makes plain that it is the binding that a CA refuses. CAs answer that with several types.
func externalAccount(err error, keyID string) error {
	p := detailsOf(err)
	if p == nil {
		return err
	}
	switch strings.TrimPrefix(p.Type, ns) {
	case "unauthorized", "malformed", "externalAccountRequired":
		return &domain.Failure{Problem: domain.Problem{Reason: "EXTERNAL_ACCOUNT_REFUSED", Type: p.Type, Detail: fmt.Sprintf(
			"the CA refuses the external account %q: %s. Check key id and HMAC key, or get new ones from the CA (many serve only once), and set acme.externalAccount on the issuer", keyID, p.Detail)}}
	}
	return err
}

func mailto(contacts []string) []string {
	out := make([]string, len(contacts))
	for i, mail := range contacts {
		out[i] = "mailto:" + mail
	}
	return out
}

// AccountState is what a CA says of an account.
type AccountState struct {
	Status   string   // valid, deactivated or revoked (RFC 8555 section 7.1.2)
	Contacts []string // without "mailto:"
}

// Account asks the CA for the account.
func (c *Client) Account(ctx context.Context, a Account) (out AccountState, err error) {
	err = c.with(ctx, a, func(s *session) error {
		acc, err := s.core.Accounts.Get(a.URL)
		out.Status = acc.Status
		for _, contact := range acc.Contact {
			out.Contacts = append(out.Contacts, strings.TrimPrefix(contact, "mailto:"))
		}
		return err
	})
	return out, err
}

// UpdateContacts gives the account the issuer's contacts (RFC 8555 section 7.3.2).
func (c *Client) UpdateContacts(ctx context.Context, a Account) error {
	return c.with(ctx, a, func(s *session) error {
		return s.post(a.URL, map[string]any{"contact": mailto(a.Issuer.Contacts)}, privateKey(a.Key, a.URL)) // lego leaves an empty list out
	})
}

// Deactivate ends the account for good (RFC 8555 section 7.3.6). One that the CA counts as ended, or does not know, is a success.
func (c *Client) Deactivate(ctx context.Context, a Account) error {
	return c.with(ctx, a, func(s *session) error {
		err := s.core.Accounts.Deactivate(a.URL)
		if p := detailsOf(err); p != nil && (p.Type == ns+"unauthorized" || p.Type == ns+"accountDoesNotExist") {
			return nil
		}
		return err
	})
}

// RotateKey makes next the key of the account (RFC 8555 section 7.3.5). It asks first whether it is so already: the answer of an earlier call may
// have been lost. With askOnly it does no more than that. A failure that is not Unknown means that the account still has the key of a.
func (c *Client) RotateKey(ctx context.Context, a Account, next crypto.Signer, askOnly bool) error {
	changed, err := c.hasKey(ctx, a, next)
	if err != nil || changed {
		return err
	}
	if askOnly {
		return &domain.Failure{Problem: domain.Problem{Reason: "KEY_CHANGE_UNANSWERED", Detail: "the CA did not change the account's key, however often it was asked; the account keeps the key that it has. Try again later"}}
	}
	return c.with(ctx, a, func(s *session) error {
		to := s.core.GetDirectory().KeyChangeURL
		unsupported := &domain.Failure{Problem: domain.Problem{Reason: "KEY_CHANGE_UNSUPPORTED", Detail: fmt.Sprintf(
			"the CA at %s cannot change the key of an account; to have a new key, deactivate the account and activate it again", a.Issuer.DirectoryURL)}}
		if to == "" {
			return unsupported
		}
		proof, err := sign(to, map[string]any{"account": a.URL, "oldKey": jose.JSONWebKey{Key: a.Key.Public()}}, privateKey(next, ""), nil)
		if err != nil {
			return err
		}
		err = s.post(to, json.RawMessage(proof), privateKey(a.Key, a.URL))
		switch p := detailsOf(err); {
		case p != nil && p.HTTPStatus == http.StatusNotImplemented:
			return unsupported
		case p != nil && p.HTTPStatus == http.StatusConflict:
			return otherAccount
		}
		return err
	})
}

var otherAccount = &domain.Failure{Problem: domain.Problem{Reason: "KEY_CHANGE_REFUSED", Detail: "the CA says that the new key belongs to another account; ask for another key"}}

// hasKey asks the CA whether next is the account's key by now, and when it cannot say, whether the present one still is. Its failures leave that open.
func (c *Client) hasKey(ctx context.Context, a Account, next crypto.Signer) (bool, error) {
	found := ""
	err := c.once(ctx, a.Issuer, next, func(s *session) error {
		acc, err := s.core.Accounts.New(lego.Account{OnlyReturnExisting: true})
		found = acc.Location
		return err
	})
	var f *domain.Failure
	switch {
	case err == nil && found != a.URL:
		return false, otherAccount
	case err == nil:
		return true, nil
	case !errors.As(err, &f):
		return false, err
	case f.AccountGone: // no account has it
		return false, nil
	case !f.Problem.Retrying:
		if _, err := c.Account(ctx, a); err == nil {
			return false, nil
		}
	}
	f.Unknown, f.Problem.Retrying = true, true
	return false, f
}

// detailsOf returns the CA's problem document, nil when err is something else.
func detailsOf(err error) *lego.ProblemDetails {
	var p *lego.ProblemDetails
	errors.As(err, &p)
	return p
}
