package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	lego "github.com/go-acme/lego/v4/acme"
	jose "github.com/go-jose/go-jose/v4"

	"github.com/certwright/certwright/services/orders/internal/domain"
)

// This file signs the requests that lego cannot make: by two keys, or by a key that is not here.

// nonceTries is how often a request is sent when the CA refuses its nonce (RFC 8555 section 6.5).
const nonceTries = 5

// Signature is a JWS signature by a key that is elsewhere.
type Signature struct {
	Bytes     []byte
	Algorithm string // ES256 …
	JWK       string // the public key
}

// RemoteKey signs the JWS signing input of a revocation. With an empty input it answers algorithm and JWK alone.
type RemoteKey func(ctx context.Context, input []byte) (Signature, error)

// RevokeByKey revokes a certificate with its own key (RFC 8555 section 7.6): no account is needed. already is true when the CA had revoked it before.
func (c *Client) RevokeByKey(ctx context.Context, i domain.Issuer, key RemoteKey, der []byte, reason uint) (already bool, err error) {
	err = c.once(ctx, i, nil, func(s *session) error {
		public, err := key(s.ctx, nil)
		if err != nil {
			return err
		}
		remote := &remoteKey{ctx: s.ctx, sign: key, algorithm: jose.SignatureAlgorithm(public.Algorithm)}
		if err := json.Unmarshal([]byte(public.JWK), &remote.public); err != nil {
			return fmt.Errorf("the certificate's public key as keys tells it: %w", err)
		}
		already, err = revoked(s.post(s.core.GetDirectory().RevokeCertURL, revocation(der, reason), jose.SigningKey{Algorithm: remote.algorithm, Key: remote}))
		return err
	})
	return already, err
}

func revocation(der []byte, reason uint) lego.RevokeCertMessage {
	return lego.RevokeCertMessage{Certificate: base64.RawURLEncoding.EncodeToString(der), Reason: &reason}
}

// revoked takes what came of a revocation: a certificate that was revoked before is a success.
func revoked(err error) (already bool, _ error) {
	if p := detailsOf(err); p != nil && p.Type == ns+"alreadyRevoked" {
		return true, nil
	}
	return false, err
}

// remoteKey is a RemoteKey as go-jose takes it.
type remoteKey struct {
	ctx       context.Context //nolint:containedctx // one call's; go-jose's interface has no context
	sign      RemoteKey
	algorithm jose.SignatureAlgorithm
	public    jose.JSONWebKey
}

func (k *remoteKey) Public() *jose.JSONWebKey        { return &k.public }
func (k *remoteKey) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{k.algorithm} }

func (k *remoteKey) SignPayload(input []byte, _ jose.SignatureAlgorithm) ([]byte, error) {
	s, err := k.sign(k.ctx, input)
	return s.Bytes, err
}

// privateKey is a key that is here, and the account URL that its signatures name; without one they carry the public key.
func privateKey(key crypto.Signer, kid string) jose.SigningKey {
	algorithm := jose.RS256
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		algorithm = jose.ES256
		if ec.Curve == elliptic.P384() {
			algorithm = jose.ES384
		}
	}
	return jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}
}

// sign makes a JWS of the payload as JSON (RFC 8555 section 6.2). nonces may be nil.
func sign(to string, payload any, key jose.SigningKey, nonces jose.NonceSource) ([]byte, error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	jwk, named := key.Key.(jose.JSONWebKey)
	signer, err := jose.NewSigner(key, &jose.SignerOptions{
		NonceSource: nonces, EmbedJWK: !named || jwk.KeyID == "", ExtraHeaders: map[jose.HeaderKey]any{"url": to},
	})
	if err != nil {
		return nil, err
	}
	signed, err := signer.Sign(text)
	if err != nil {
		return nil, err
	}
	return []byte(signed.FullSerialize()), nil
}

// post sends the payload, signed with the key, and expects no more than a success.
func (s *session) post(to string, payload any, key jose.SigningKey) error {
	var err error
	for range nonceTries {
		if err = s.postOnce(to, payload, key); err == nil {
			return nil
		}
		if p := detailsOf(err); p == nil || p.Type != ns+"badNonce" {
			return err
		}
	}
	return err
}

func (s *session) postOnce(to string, payload any, key jose.SigningKey) error {
	if !strings.HasPrefix(to, "https://") {
		return errors.New("HTTPS is required: " + to)
	}
	body, err := sign(to, payload, key, s)
	if err != nil {
		return err
	}
	resp, err := s.send(http.MethodPost, to, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Nonce implements jose.NonceSource (RFC 8555 section 7.2).
func (s *session) Nonce() (string, error) {
	resp, err := s.send(http.MethodHead, s.core.GetDirectory().NewNonceURL, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it is empty
	if nonce := resp.Header.Get("Replay-Nonce"); nonce != "" {
		return nonce, nil
	}
	return "", errors.New("the CA gave no nonce")
}

// send makes a request; a refusal is the CA's problem document as an error. The caller closes the body.
func (s *session) send(method, to string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(s.ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", s.userAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/jose+json")
	}
	resp, err := s.RoundTrip(req)
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end
	p := &lego.ProblemDetails{}
	if err := json.NewDecoder(resp.Body).Decode(p); err != nil {
		return nil, err
	}
	return nil, p
}
