package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

func (s *server) signed(path string) *jose.JSONWebSignature {
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotNil(s.t, s.jws[path], "nothing was sent to %s", path)
	return s.jws[path]
}

func newTestKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func TestAnAccountThatTheCAForgotIsRegisteredWithItsKeyAndNotWithItsURL(t *testing.T) {
	s, c, acc := serve(t)
	acc.Issuer.TermsAgreed = true
	s.on("/new-account", answers(201, `{"status":"valid"}`, "Location", s.URL+"/acct/7"))
	for range 2 {
		_, err := c.Register(t.Context(), acc)
		require.NoError(t, err)
		head := s.signed("/new-account").Signatures[0].Protected
		require.Empty(t, head.KeyID, "RFC 8555 section 7.3: newAccount is signed with a jwk")
		require.NotNil(t, head.JSONWebKey)
	}
}

func TestAnExternalAccountIsBound(t *testing.T) {
	s, c, acc := serve(t)
	acc.URL, acc.Issuer.TermsAgreed = "", true
	s.meta["externalAccountRequired"] = true
	s.on("/new-account", answers(201, `{"status":"valid"}`, "Location", s.URL+"/acct/7"))
	_, err := c.Register(t.Context(), acc)
	f := failure(t, err)
	require.Equal(t, "EXTERNAL_ACCOUNT_REQUIRED", f.Problem.Reason)
	require.Contains(t, f.Problem.Detail, "acme.externalAccount")
	require.Zero(t, s.count("/new-account"))

	key := []byte("0123456789abcdef0123456789abcdef")
	acc.Issuer.EABKeyID, acc.EABKey = "kid-1", secret.NewBytes(key)
	_, err = c.Register(t.Context(), acc)
	require.NoError(t, err)
	var sent struct{ ExternalAccountBinding json.RawMessage }
	require.NoError(t, json.Unmarshal(s.last["/new-account"], &sent))
	bound, err := jose.ParseSigned(string(sent.ExternalAccountBinding), algorithms)
	require.NoError(t, err)
	payload, err := bound.Verify(key)
	require.NoError(t, err, "the CA checks it with the HMAC key")
	require.Equal(t, "kid-1", bound.Signatures[0].Protected.KeyID)
	var public jose.JSONWebKey
	require.NoError(t, json.Unmarshal(payload, &public))
	require.Equal(t, acc.Key.Public(), public.Key)

	s.on("/new-account", answers(403, problemDoc("unauthorized", "the MAC is wrong")))
	_, err = c.Register(t.Context(), acc)
	f = failure(t, err)
	require.Equal(t, "EXTERNAL_ACCOUNT_REFUSED", f.Problem.Reason)
	require.Contains(t, f.Problem.Detail, "the MAC is wrong")
	require.NotContains(t, f.Problem.Detail, "abcdef")
}

// keyChange answers as a CA does that knows the account by the key that it has.
func keyChange(t *testing.T, s *server, acc Account, next *ecdsa.PrivateKey) (changed func() bool) {
	t.Helper()
	done := false
	s.on("/new-account", func(w http.ResponseWriter, payload []byte) {
		require.JSONEq(t, `{"onlyReturnExisting":true}`, string(payload))
		if !done {
			answers(400, problemDoc("accountDoesNotExist", "who?"))(w, nil)
			return
		}
		answers(200, `{"status":"valid"}`, "Location", acc.URL)(w, nil)
	})
	s.on("/key-change", func(w http.ResponseWriter, payload []byte) {
		inner, err := jose.ParseSigned(string(payload), algorithms)
		require.NoError(t, err)
		head := inner.Signatures[0].Protected
		require.Equal(t, s.URL+"/key-change", head.ExtraHeaders["url"])
		require.Empty(t, head.Nonce, "RFC 8555 section 7.3.5: the inner JWS has no nonce")
		require.Equal(t, next.Public(), head.JSONWebKey.Key)
		text, err := inner.Verify(next.Public())
		require.NoError(t, err)
		var change struct {
			Account string
			OldKey  jose.JSONWebKey
		}
		require.NoError(t, json.Unmarshal(text, &change))
		require.Equal(t, acc.URL, change.Account)
		require.Equal(t, acc.Key.Public(), change.OldKey.Key)
		done = true
	})
	return func() bool { return done }
}

func TestTheKeyOfAnAccountIsChangedOnceHoweverOftenItIsAsked(t *testing.T) {
	s, c, acc := serve(t)
	next := newTestKey(t)
	changed := keyChange(t, s, acc, next)
	require.NoError(t, c.RotateKey(t.Context(), acc, next, false))
	require.True(t, changed())
	outer := s.signed("/key-change")
	require.Equal(t, acc.URL, outer.Signatures[0].Protected.KeyID)
	_, err := outer.Verify(acc.Key.Public())
	require.NoError(t, err)
	// The answer was lost: the CA is asked with the new key and knows it.
	require.NoError(t, c.RotateKey(t.Context(), acc, next, false))
	require.Equal(t, 1, s.count("/key-change"))
}

func TestAKeyChangeThatIsNotToBeHad(t *testing.T) {
	next := newTestKey(t)
	for _, r := range []struct {
		name, reason  string
		keyChange     func(http.ResponseWriter, []byte)
		newAccount    func(http.ResponseWriter, []byte)
		askOnly       bool
		unknown, sent bool
	}{
		{"a CA that has no such thing", "KEY_CHANGE_UNSUPPORTED", answers(501, ""), nil, false, false, true},
		{"a key that another account has", "KEY_CHANGE_REFUSED", answers(409, problemDoc("conflict", "")), nil, false, false, true},
		{"an account at the CA that is another's", "KEY_CHANGE_REFUSED", nil, answers(200, `{}`, "Location", "https://ca/acct/9"), false, false, false},
		{"a limit", "RATE_LIMITED", answers(429, problemDoc("rateLimited", "slowly")), nil, false, false, true},
		{"an answer that is lost", "CA_UNREACHABLE", func(http.ResponseWriter, []byte) { panic(http.ErrAbortHandler) }, nil, false, true, true},
		{"a CA in trouble", "CA_ERROR", answers(500, ""), nil, false, true, true},
		{"a CA that cannot even be asked", "CA_ERROR", nil, answers(500, ""), false, true, false},
		{"the last word", "KEY_CHANGE_UNANSWERED", nil, nil, true, false, false},
	} {
		t.Run(r.name, func(t *testing.T) {
			s, c, acc := serve(t)
			s.on("/new-account", answers(400, problemDoc("accountDoesNotExist", "who?")))
			if r.newAccount != nil {
				s.on("/new-account", r.newAccount)
			}
			s.on("/key-change", r.keyChange)
			f := failure(t, c.RotateKey(t.Context(), acc, next, r.askOnly))
			require.Equal(t, r.reason, f.Problem.Reason, f.Problem.Detail)
			require.Equal(t, r.unknown, f.Unknown, "whether the key may have been changed")
			require.Equal(t, r.sent, s.count("/key-change") > 0)
		})
	}
}

func TestARefusedNonceIsNotTheEnd(t *testing.T) {
	s, c, acc := serve(t)
	tries := 0
	s.on("/acct/1", func(w http.ResponseWriter, payload []byte) {
		require.JSONEq(t, `{"contact":[]}`, string(payload), "an empty list takes the contacts away")
		if tries++; tries < 3 {
			answers(400, problemDoc("badNonce", "again"))(w, nil)
		}
	})
	require.NoError(t, c.UpdateContacts(t.Context(), acc))
	require.Equal(t, 3, tries)
}

func TestAnAccountThatIsDeactivatedAlreadyIsASuccess(t *testing.T) {
	s, c, acc := serve(t)
	s.on("/acct/1", answers(403, problemDoc("unauthorized", "deactivated")))
	require.NoError(t, c.Deactivate(t.Context(), acc))
	require.JSONEq(t, `{"status":"deactivated"}`, string(s.last["/acct/1"]))
	s.on("/acct/1", answers(500, ""))
	require.True(t, failure(t, c.Deactivate(t.Context(), acc)).Problem.Retrying)
}

func TestARevocationIsSignedByAKeyThatIsElsewhere(t *testing.T) {
	s, c, acc := serve(t)
	key := newTestKey(t)
	var inputs []string
	remote := func(_ context.Context, input []byte) (Signature, error) {
		inputs = append(inputs, string(input))
		jwk, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
		require.NoError(t, err)
		out := Signature{Algorithm: "ES256", JWK: string(jwk)}
		if len(input) > 0 {
			hash := crypto.SHA256.New()
			hash.Write(input)
			r, v, err := ecdsa.Sign(rand.Reader, key, hash.Sum(nil))
			require.NoError(t, err)
			out.Bytes = append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
		}
		return out, nil
	}
	s.on("/revoke", answers(200, ""))
	already, err := c.RevokeByKey(t.Context(), acc.Issuer, remote, []byte{1}, 1)
	require.NoError(t, err)
	require.False(t, already)
	jws := s.signed("/revoke")
	payload, err := jws.Verify(key.Public())
	require.NoError(t, err)
	require.JSONEq(t, `{"certificate":"AQ","reason":1}`, string(payload))
	require.Equal(t, key.Public(), jws.Signatures[0].Protected.JSONWebKey.Key)
	require.Empty(t, jws.Signatures[0].Protected.KeyID)
	require.Len(t, inputs, 2)

	s.on("/revoke", answers(400, problemDoc("alreadyRevoked", "done")))
	already, err = c.RevokeByKey(t.Context(), acc.Issuer, remote, []byte{1}, 1)
	require.NoError(t, err)
	require.True(t, already)

	gone := errs.New(errs.Precondition, "KEY_DESTROYED", "the key is destroyed")
	_, err = c.RevokeByKey(t.Context(), acc.Issuer, func(context.Context, []byte) (Signature, error) { return Signature{}, gone }, []byte{1}, 1)
	require.Equal(t, "KEY_DESTROYED", errs.ReasonOf(err), "what keys says is not the CA's word")
}

func TestAProfileThatTheCADoesNotOfferIsNotOrdered(t *testing.T) {
	s, c, acc := serve(t)
	_, err := c.NewOrder(t.Context(), acc, spec, "tlsserver", "")
	f := failure(t, err)
	require.Equal(t, "PROFILE_UNKNOWN", f.Problem.Reason)
	require.Contains(t, f.Problem.Detail, `"tlsserver"`)
	require.Contains(t, f.Problem.Detail, "allowed are shortlived")
	require.False(t, f.Problem.Retrying)
	require.False(t, f.Unknown)
	require.Zero(t, s.count("/new-order"))

	s.mu.Lock()
	s.meta["profiles"] = map[string]string{"tlsserver": "new"}
	s.mu.Unlock()
	s.on("/new-order", answers(201, pending(s), "Location", s.URL+"/order/1"))
	_, err = c.NewOrder(t.Context(), acc, spec, "tlsserver", "")
	require.NoError(t, err, "what the CA offers since is seen")
}

func TestTheCAIsReachedThroughTheIssuersProxy(t *testing.T) {
	s, c, acc := serve(t)
	through := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, http.MethodConnect, r.Method)
		through++
		to, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
		require.NoError(t, err)
		from, _, err := http.NewResponseController(w).Hijack()
		require.NoError(t, err)
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}))
	t.Cleanup(proxy.Close)
	s.on("/order/1", answers(200, pending(s)))
	acc.Issuer.ProxyURL = proxy.URL
	_, err := c.Order(t.Context(), acc, s.URL+"/order/1")
	require.NoError(t, err)
	require.Equal(t, 1, through)

	acc.Issuer.ProxyURL = "http://127.0.0.1:1"
	_, err = c.Order(t.Context(), acc, s.URL+"/order/1")
	f := failure(t, err)
	require.Equal(t, "CA_UNREACHABLE", f.Problem.Reason)
	require.Contains(t, f.Problem.Detail, "the proxy http://127.0.0.1:1")
	require.Contains(t, f.Problem.Detail, "acme.proxyUrl")
	require.False(t, f.Unknown, "nothing was sent")
	require.False(t, errors.Is(err, context.Canceled))
}
