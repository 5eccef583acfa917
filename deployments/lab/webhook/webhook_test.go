package webhook_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/webhook"
	"github.com/certwright/certwright/shared/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The example of the Standard Webhooks specification and its reference libraries.
const (
	secret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	id        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	stamp     = "1614265330"
	body      = `{"test": 2432232314}`
	signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func headers(id, stamp, signature string) http.Header {
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	h.Set("webhook-signature", signature)
	return h
}

func TestVerify(t *testing.T) {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	require.NoError(t, err)
	at := time.Unix(seconds, 0)
	for _, row := range []struct {
		name    string
		secrets []string
		header  http.Header
		body    string
		now     time.Time
		says    string
	}{
		{"the specification's example is good", []string{secret}, headers(id, stamp, signature), body, at, ""},
		{"one good signature among others is enough", []string{secret}, headers(id, stamp, "v1,AAAA v1a,x "+signature), body, at, ""},
		{"the second of two secrets is good", []string{"whsec_c2VjcmV0", secret}, headers(id, stamp, signature), body, at, ""},
		{"another body is not", []string{secret}, headers(id, stamp, signature), body + " ", at, "no signature"},
		{"another id is not", []string{secret}, headers("msg_x", stamp, signature), body, at, "no signature"},
		{"another secret is not", []string{"whsec_c2VjcmV0"}, headers(id, stamp, signature), body, at, "no signature"},
		{"another version is not", []string{secret}, headers(id, stamp, "v2"+signature[2:]), body, at, "no signature"},
		{"six minutes later is too late", []string{secret}, headers(id, stamp, signature), body, at.Add(6 * time.Minute), "away from now"},
		{"six minutes early is too early", []string{secret}, headers(id, stamp, signature), body, at.Add(-6 * time.Minute), "away from now"},
		{"a time that is no number is refused", []string{secret}, headers(id, "noon", signature), body, at, "not a number"},
		{"no signature is refused", []string{secret}, headers(id, stamp, ""), body, at, "must all be there"},
		{"a secret without its prefix is refused", []string{"c2VjcmV0"}, headers(id, stamp, signature), body, at, "whsec_"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := webhook.Verify(row.secrets, row.header, []byte(row.body), row.now)
			if row.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, row.says)
		})
	}
}

func post(t *testing.T, r *webhook.Receiver, id string) *http.Response {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.RootPEM())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL(), bytes.NewBufferString(body))
	require.NoError(t, err)
	q.Header = headers(id, strconv.FormatInt(clock.System().Now().Unix(), 10), signature)
	resp, err := client.Do(q)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}

func TestDeliveriesAreKeptAndAnsweredAsTold(t *testing.T) {
	r := labtest.Webhook(t, webhook.Options{TLS: true})
	r.AnswerNext(webhook.Answer{Status: 503, RetryAfter: 2 * time.Second}, webhook.Answer{Status: 410})
	resp := post(t, r, "msg_1")
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "2", resp.Header.Get("Retry-After"))
	require.Equal(t, 410, post(t, r, "msg_1").StatusCode)
	require.Equal(t, 204, post(t, r, "msg_2").StatusCode)
	r.AnswerAlways(webhook.Answer{Status: 500})
	require.Equal(t, 500, post(t, r, "msg_3").StatusCode)

	all, err := r.Wait(labtest.Deadline(t, 5*time.Second), 4)
	require.NoError(t, err)
	require.Equal(t, []int{503, 410, 204, 500}, []int{all[0].Status, all[1].Status, all[2].Status, all[3].Status})
	require.Equal(t, "msg_1", all[1].ID)
	require.Equal(t, body, string(all[0].Body))
}

func TestABadSignatureIsAnswered401(t *testing.T) {
	r := labtest.Webhook(t, webhook.Options{Secrets: []string{secret}})
	require.Equal(t, 401, post(t, r, id).StatusCode)
	require.Error(t, r.Deliveries()[0].Verified)
	lenient := labtest.Webhook(t, webhook.Options{Secrets: []string{secret}, AcceptUnsigned: true})
	require.Equal(t, 204, post(t, lenient, id).StatusCode)
	require.Error(t, lenient.Deliveries()[0].Verified)
}
