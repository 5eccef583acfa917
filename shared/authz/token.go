package authz

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// maxToken bounds what is looked at, in bytes.
const maxToken = 16 << 10

// skew is how far the clocks of two hosts may be apart.
const skew = 10 * time.Second

// claims is what is signed. Times are Unix milliseconds.
type claims struct {
	Principal
	Audience string `json:"aud"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

var encoding = base64.RawURLEncoding.Strict()

// Signer signs principals for one installation. It is safe for concurrent use.
type Signer struct {
	key      ed25519.PrivateKey
	audience string
}

// NewSigner makes a signer; audience names the installation, so that a token of the test bench is worth nothing in production.
func NewSigner(key ed25519.PrivateKey, audience string) *Signer {
	return &Signer{key: key, audience: audience}
}

// Sign returns p in compact form, base64url(JSON) "." base64url(Ed25519 signature over the first part), valid from now for ttl.
func (s *Signer) Sign(p Principal, ttl time.Duration, now time.Time) string {
	text, err := json.Marshal(claims{Principal: p, Audience: s.audience, Issued: now.UnixMilli(), Expires: now.Add(ttl).UnixMilli()})
	if err != nil { // strings and integers always marshal
		return ""
	}
	body := encoding.EncodeToString(text)
	return body + "." + encoding.EncodeToString(ed25519.Sign(s.key, []byte(signedPrefix+body)))
}

// signedPrefix keeps a signature made for another purpose with the same key from being taken for one of these.
const signedPrefix = "certwright principal v1\n"

// Verifier checks signed principals. It is safe for concurrent use.
type Verifier struct {
	keys     []ed25519.PublicKey
	audience string
}

// NewVerifier makes a verifier that trusts these keys (several while one replaces another) for one installation.
func NewVerifier(audience string, keys ...ed25519.PublicKey) *Verifier {
	return &Verifier{keys: keys, audience: audience}
}

// Verify returns the principal of a token. Errors are Unauthenticated TOKEN_INVALID or TOKEN_EXPIRED and never quote the token.
func (v *Verifier) Verify(token string, now time.Time) (Principal, error) {
	body, sig, ok := strings.Cut(token, ".")
	if !ok || len(token) > maxToken {
		return Principal{}, errInvalid("it is not of the form body.signature")
	}
	signature, err := encoding.DecodeString(sig)
	if err != nil {
		return Principal{}, errInvalid("its signature is not base64url")
	}
	if !v.signed(body, signature) {
		return Principal{}, errInvalid("it is not signed by a key that is trusted here")
	}
	text, err := encoding.DecodeString(body)
	if err != nil {
		return Principal{}, errInvalid("its body is not base64url")
	}
	var c claims
	if err := json.Unmarshal(text, &c); err != nil || c.IsZero() {
		return Principal{}, errInvalid("its body names nobody")
	}
	switch {
	case c.Audience != v.audience:
		return Principal{}, errInvalid("it is for another installation")
	case now.UnixMilli() >= c.Expires+skew.Milliseconds():
		return Principal{}, errs.New(errs.Unauthenticated, ReasonTokenExpired, "the signed principal of the call expired at %s; the clocks of the hosts may differ by %s at most",
			time.UnixMilli(c.Expires).UTC().Format(time.RFC3339), skew)
	case now.UnixMilli() < c.Issued-skew.Milliseconds():
		return Principal{}, errInvalid("it was signed in the future; compare the clocks of the hosts")
	}
	return c.Principal, nil
}

func (v *Verifier) signed(body string, signature []byte) bool {
	for _, k := range v.keys {
		if len(k) == ed25519.PublicKeySize && ed25519.Verify(k, []byte(signedPrefix+body), signature) {
			return true
		}
	}
	return false
}

func errInvalid(why string) error {
	return errs.New(errs.Unauthenticated, ReasonTokenInvalid, "the signed principal of the call is not valid: %s", why)
}
