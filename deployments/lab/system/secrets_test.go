package system_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/smtp"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/sqlite"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/telemetry"
)

// form is one way in which a secret could be written, and the bytes that give it away.
type form struct {
	name  string
	bytes []byte
}

// wanted is a secret that must be nowhere: the forms that give it away, and the ways in which a program would write it, by which the search is tried.
type wanted struct {
	name     string
	forms    []form
	writings []form
}

// written are the ways to write bytes down, made apart from the forms that are searched for.
func written(kind string, b []byte) []form {
	asJSON, _ := json.Marshal(map[string]any{"secret": b, "n": 1}) // cannot fail
	return []form{
		{kind, b}, {kind + ", hex", fmt.Appendf(nil, "%x", b)}, {kind + ", upper-case hex", fmt.Appendf(nil, "%X", b)},
		{kind + ", base64", []byte(base64.StdEncoding.EncodeToString(b))}, {kind + ", raw base64", []byte(base64.RawStdEncoding.EncodeToString(b))},
		{kind + ", base64url", []byte(base64.URLEncoding.EncodeToString(b))}, {kind + ", raw base64url", []byte(base64.RawURLEncoding.EncodeToString(b))},
		{kind + " in JSON", asJSON}, {kind + ", %v", fmt.Appendf(nil, "%v", b)},
		{kind + " after a user name, base64", []byte(base64.StdEncoding.EncodeToString(append([]byte("\x00mailer\x00"), b...)))},
		{kind + " between others, base64", []byte(base64.URLEncoding.EncodeToString(slices.Concat([]byte("ab:"), b, []byte(":cd"))))},
	}
}

// encodings are the forms of bytes that are secret as a whole: themselves, hex, base64 in any of its alphabets and at any alignment inside something
// longer, and how fmt prints a byte slice.
func encodings(kind string, b []byte) []form {
	out := []form{
		{kind, b},
		{kind + " as hex", []byte(hex.EncodeToString(b))},
		{kind + " as upper-case hex", []byte(strings.ToUpper(hex.EncodeToString(b)))},
		{kind + " as a printed slice", []byte(strings.Trim(fmt.Sprint(b), "[]"))},
	}
	for shift := range 3 {
		std := base64.RawStdEncoding.EncodeToString(slices.Concat(make([]byte, shift), b))
		// The first characters hold bits of what stands before, the last one perhaps of what follows.
		std = std[[]int{0, 2, 3}[shift]:]
		if (shift+len(b))%3 != 0 {
			std = std[:len(std)-1]
		}
		out = append(out, form{fmt.Sprintf("%s as base64 at offset %d", kind, shift), []byte(std)})
		if url := strings.NewReplacer("+", "-", "/", "_").Replace(std); url != std {
			out = append(out, form{fmt.Sprintf("%s as base64url at offset %d", kind, shift), []byte(url)})
		}
	}
	return out
}

// text is a secret that people type: a password, a token.
func text(name, secret string, decoded ...[]byte) wanted {
	w := wanted{name, encodings("text", []byte(secret)), written("text", []byte(secret))}
	for _, d := range decoded {
		w.forms = append(w.forms, encodings("decoded bytes", d)...)
		w.writings = append(w.writings, written("decoded bytes", d)...)
	}
	return w
}

// privateKey is a private key: its secret numbers in every encoding (which finds every DER and base64 of it), as a decimal number, and the lines of
// its PEM blocks.
func privateKey(t *testing.T, name string, key any) wanted {
	t.Helper()
	w := wanted{name: name}
	var secrets [][]byte
	var ders [][]byte
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	ders = append(ders, pkcs8)
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		require.NoError(t, err)
		secrets = append(secrets, d)
		sec1, err := x509.MarshalECPrivateKey(k)
		require.NoError(t, err)
		ders = append(ders, sec1)
	case *rsa.PrivateKey:
		secrets = append(secrets, k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes())
		ders = append(ders, x509.MarshalPKCS1PrivateKey(k))
	case ed25519.PrivateKey:
		secrets = append(secrets, k.Seed())
	default:
		t.Fatalf("%s: no forms for a %T", name, key)
	}
	for _, s := range secrets {
		w.forms = append(w.forms, encodings("raw number", s)...)
		w.forms = append(w.forms, form{"decimal number", []byte(new(big.Int).SetBytes(s).String())})
		w.writings = append(w.writings, written("raw number", s)...)
	}
	if _, ok := key.(ed25519.PrivateKey); !ok { // that one is bytes and no number
		w.writings = append(w.writings, form{"the key, %+v", fmt.Appendf(nil, "%+v", key)})
	}
	for i, der := range ders {
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		w.writings = append(w.writings, written(fmt.Sprintf("DER %d", i), der)...)
		w.writings = append(w.writings, written(fmt.Sprintf("PEM %d", i), text)...)
		w.writings = append(w.writings, form{fmt.Sprintf("PEM %d quoted", i), fmt.Appendf(nil, "%q", text)})
		w.forms = append(w.forms, form{fmt.Sprintf("DER %d", i), der})
		for _, s := range secrets {
			w.forms = append(w.forms, pemLines(der, s)...)
		}
	}
	return w
}

// pemLines are the lines of der's PEM body that hold at least twelve bytes of the secret, as they are and encoded once more.
func pemLines(der, secret []byte) []form {
	at := bytes.Index(der, secret)
	if at < 0 {
		return nil
	}
	var out []form
	const line = 48 // bytes in a line of 64 characters
	for from := 0; from < len(der); from += line {
		to := min(from+line, len(der))
		if min(to, at+len(secret))-max(from, at) >= 12 {
			out = append(out, encodings(fmt.Sprintf("PEM line %d", from/line+1), []byte(base64.StdEncoding.EncodeToString(der[from:to])))...)
		}
	}
	return out
}

func parseKey(t *testing.T, text []byte) any {
	t.Helper()
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		return key
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	require.NoError(t, err)
	return key
}

// place is something that is searched.
type place struct {
	name string
	data []byte
}

// find says where which form of which secret stands.
func find(places []place, secrets []wanted) []string {
	var out []string
	for _, p := range places {
		for _, w := range secrets {
			for _, f := range w.forms {
				if bytes.Contains(p.data, f.bytes) {
					out = append(out, fmt.Sprintf("%s holds the %s of %s", p.name, f.name, w.name))
				}
			}
		}
	}
	return out
}

// files reads everything below dir, without the files whose path from dir is in except.
func files(t *testing.T, dir, as string, except ...string) []place {
	t.Helper()
	var out []place
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || slices.Contains(except, name) {
			return err
		}
		data, err := os.ReadFile(path)
		out = append(out, place{as + name, data})
		return err
	}))
	return out
}

// told writes down everything that a span says.
func told(spans []sdktrace.ReadOnlySpan) []byte {
	var b bytes.Buffer
	attributes := func(all []attribute.KeyValue) {
		for _, a := range all {
			fmt.Fprintf(&b, " %s=%s", a.Key, a.Value.String())
		}
	}
	for _, s := range spans {
		fmt.Fprintf(&b, "%s %s %s", s.InstrumentationScope().Name, s.Name(), s.Status().Description)
		attributes(s.Attributes())
		attributes(s.Resource().Attributes())
		for _, e := range s.Events() {
			b.WriteString(" " + e.Name)
			attributes(e.Attributes)
		}
		for _, l := range s.Links() {
			b.WriteString(" " + l.SpanContext.TraceState().String())
			attributes(l.Attributes)
		}
		b.WriteString(" " + s.SpanContext().TraceState().String() + "\n")
	}
	return b.Bytes()
}

// output keeps what was logged.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.b.Bytes())
}

// kept are the files whose business it is to hold a secret, by their path from the data directory. Each is mode 0600 in a directory of mode 0700.
var kept = []string{
	"admin.token", "keys/keys.kek", "orders/orders.kek", "dns/dns.kek", "notifications/notifications.kek", "gateway/edge-ca.key", "gateway/edge.key",
}

// A whole run leaves no secret in stores, streams, logs, spans and messages. That the search would see one is shown first, with one planted in each form.
func TestNoSecretLeavesItsPlace(t *testing.T) {
	logs, spans := &output{}, tracetest.NewSpanRecorder()
	tel, err := telemetry.New(t.Context(), telemetry.Config{
		Service: "certwright", SampleRatio: 1, LogLevel: "debug", Output: logs, SpanProcessors: []sdktrace.SpanProcessor{spans},
	})
	require.NoError(t, err)
	s, issuer := start(t, stage.Options{Change: func(cfg *certwright.Config) {
		hasty(cfg)
		cfg.Log.Level, cfg.Telemetry = "debug", tel
	}})
	data := filepath.Join(s.Dir, "platform")
	ctx := labtest.Deadline(t, 2*time.Minute)

	var messages output
	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	go func() {
		_ = s.Events(following, func(e client.Event) { fmt.Fprintf(&messages, "%s %s %s\n", e.Type, e.Subject, e.Data) })
	}()

	run := secretRun{Stage: s, t: t}
	run.connect(ctx)
	www := run.issue(ctx, "http-01", issuer.GetId(), "ECDSA_P256", "www.shop.test")
	wild := run.issue(ctx, "dns-01", issuer.GetId(), "RSA_2048", "*.shop.test", "shop.test")
	run.renew(ctx, www)
	run.mistakes(ctx, issuer.GetId())
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates/"+wild.GetId()+":revoke", &inventoryv1.RevokeCertificateRequest{Reason: "keyCompromise"}, nil))
	_, err = s.Mail.Wait(ctx, 1)
	require.NoError(t, err)
	_, err = s.Hook.Wait(ctx, 1)
	require.NoError(t, err)

	running := filepath.Join(t.TempDir(), "running") // with the WAL as it is while the program runs
	require.NoError(t, os.CopyFS(running, os.DirFS(data)))
	stopFollowing()
	require.NoError(t, s.Platform.Close())
	run.atRest(ctx, data)

	for _, name := range kept {
		info, err := os.Stat(filepath.Join(data, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	places := slices.Concat(
		files(t, running, "running: ", kept...), files(t, data, "stopped: ", kept...),
		[]place{{"log", logs.bytes()}, {"spans", told(spans.Ended())}, {"messages", messages.bytes()}},
	)

	t.Run("the search reads what it claims to", func(t *testing.T) {
		readable := func(suffix string) bool {
			return slices.ContainsFunc(places, func(p place) bool {
				return strings.HasSuffix(p.name, suffix) && bytes.Contains(p.data, []byte(www.GetId()))
			})
		}
		for _, suffix := range []string{"inventory.db", "orders.db", "-wal", ".blk", "log", "spans", "messages"} {
			require.True(t, readable(suffix), "no %s names the certificate %s", suffix, www.GetId())
		}
		require.True(t, slices.ContainsFunc(places, func(p place) bool { return strings.HasSuffix(p.name, "-shm") }))
		require.Contains(t, string(logs.bytes()), `"level":"DEBUG"`)
	})
	t.Run("the search finds each form of each secret, wherever it is planted", func(t *testing.T) {
		media := map[string]place{}
		for _, suffix := range []string{"orders.db", "orders.db-wal", ".blk", "log", "spans", "messages"} {
			at := slices.IndexFunc(places, func(p place) bool { return strings.HasSuffix(p.name, suffix) })
			require.GreaterOrEqual(t, at, 0, suffix)
			media[suffix] = places[at]
		}
		for _, w := range run.secrets {
			require.NotEmpty(t, w.writings, w.name)
			for _, f := range w.writings {
				for _, p := range media {
					around := p.data[:min(len(p.data), 64<<10)]
					cut := len(around) / 2
					planted := place{"a copy of " + p.name, slices.Concat(around[:cut], f.bytes, around[cut:])}
					require.NotEmpty(t, find([]place{planted}, []wanted{w}), "%s, written as %s into a copy of %s, is not found", w.name, f.name, p.name)
				}
			}
		}
		some := run.secrets[0]
		secret := string(some.forms[1].bytes)
		seen, unseen := &output{}, tracetest.NewSpanRecorder()
		planting, err := telemetry.New(ctx, telemetry.Config{SampleRatio: 1, Output: seen, SpanProcessors: []sdktrace.SpanProcessor{unseen}})
		require.NoError(t, err)
		planting.Logger.Info("planted", "key", secret)
		require.NotEmpty(t, find([]place{{"log", seen.bytes()}}, []wanted{some}))
		for name, plant := range map[string]func(trace.Span){
			"an attribute":     func(s trace.Span) { s.SetAttributes(attribute.String("key", secret)) },
			"a list":           func(s trace.Span) { s.SetAttributes(attribute.StringSlice("keys", []string{secret})) },
			"an event":         func(s trace.Span) { s.AddEvent("used", trace.WithAttributes(attribute.String("key", secret))) },
			"a recorded error": func(s trace.Span) { s.RecordError(fmt.Errorf("bad key %s", secret)) },
			"a status":         func(s trace.Span) { s.SetStatus(codes.Error, secret) },
			"a name":           func(s trace.Span) { s.SetName(secret) },
			"a linked span": func(s trace.Span) {
				s.AddLink(trace.Link{Attributes: []attribute.KeyValue{attribute.String("key", secret)}, SpanContext: s.SpanContext()})
			},
			"bytes, as a slice": func(s trace.Span) { s.SetAttributes(attribute.String("key", fmt.Sprint(some.forms[0].bytes))) },
		} {
			unseen.Reset()
			_, span := planting.Tracer("test").Start(ctx, "planted")
			plant(span)
			span.End()
			require.NotEmpty(t, find([]place{{"spans", told(unseen.Ended())}}, []wanted{some}), name)
		}
	})
	t.Run("nothing is found", func(t *testing.T) {
		require.Greater(t, len(run.secrets), 15)
		size := 0
		for _, p := range places {
			size += len(p.data)
		}
		t.Logf("%d secrets were looked for in %d files and recordings, %d kB", len(run.secrets), len(places), size>>10)
		require.Empty(t, find(places, run.secrets))
	})
}

// secretRun is the run whose secrets are collected.
type secretRun struct {
	*stage.Stage
	t       *testing.T
	target  string
	secrets []wanted
	seen    map[string]bool
}

func (r *secretRun) add(w wanted) { r.secrets = append(r.secrets, w) }

func (r *secretRun) addText(name, secret string, decoded ...[]byte) {
	r.t.Helper()
	require.GreaterOrEqual(r.t, len(secret), 16, "%s is too short to be searched for", name)
	r.add(text(name, secret, decoded...))
}

func unbase64(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	return b
}

// connect makes every object that has a credential.
func (r *secretRun) connect(ctx context.Context) {
	t := r.t
	t.Helper()
	_, err := r.DNSAccount(ctx, "lab DNS")
	require.NoError(t, err)
	r.addText("the TSIG secret", r.Key.Secret, unbase64(t, r.Key.Secret))
	// Of a zone that nobody orders for, so that nobody asks the real services.
	for provider, a := range map[string]*dnsv1.DNSAccount{
		"cloudflare": {Cloudflare: &dnsv1.Cloudflare{ApiToken: "cloudflare-token-8Yt3Lw0Qm2"}},
		"route53":    {Route53: &dnsv1.Route53{AccessKeyId: "AKIA0123456789ABCDEF", SecretAccessKey: "route53-secret-9Kd2Vb6Xz1"}},
		"azure": {Azure: &dnsv1.Azure{
			SubscriptionId: "00000000-0000-0000-0000-000000000001", ResourceGroup: "dns", Authentication: "service_principal",
			TenantId: "00000000-0000-0000-0000-000000000002", ClientId: "00000000-0000-0000-0000-000000000003", ClientSecret: "azure-secret-4Rn7Hc5Pj8",
		}},
		"godaddy": {Godaddy: &dnsv1.GoDaddy{ApiKey: "godaddy-key", ApiSecret: "godaddy-secret-6Tf1Ws3Gb9"}},
	} {
		a.DisplayName, a.Provider, a.Zones = provider, provider, []string{provider + ".invalid"}
		require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/dnsAccounts", &dnsv1.CreateDNSAccountRequest{RequestId: provider, DnsAccount: a}, &dnsv1.DNSAccount{}))
		r.addText("the credential of "+provider, a.GetCloudflare().GetApiToken()+a.GetRoute53().GetSecretAccessKey()+a.GetAzure().GetClientSecret()+a.GetGodaddy().GetApiSecret())
	}
	r.external(ctx)
	target, err := r.Target(ctx, "web server")
	require.NoError(t, err)
	r.target = target.GetId()

	const password = "correct-horse-battery-staple-71"
	sink, err := smtp.Start(smtp.Options{Username: "mailer", Password: password})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sink.Close() })
	r.Mail = sink
	mail := &notificationsv1.Channel{}
	require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/channels", r.mailChannel("mailer", password), mail))
	test := &notificationsv1.TestChannelResponse{}
	require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/channels/"+mail.GetId()+":test", &notificationsv1.TestChannelRequest{}, test))
	r.addText("the SMTP password", password)

	hook := &notificationsv1.Channel{}
	require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/channels", &notificationsv1.CreateChannelRequest{Channel: &notificationsv1.Channel{
		DisplayName: "hook", Kind: "webhook", Webhook: &notificationsv1.Webhook{Url: r.Hook.URL()},
	}}, hook))
	secret := hook.GetWebhook().GetSecret()
	r.Hook.SetSecrets(secret)
	r.addText("the webhook secret", secret, unbase64(t, strings.TrimPrefix(secret, "whsec_")))

	token := &identityv1.CreateTokenResponse{}
	require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/tokens", &identityv1.CreateTokenRequest{
		RequestId: "token-1", Token: &identityv1.Token{DisplayName: "ci", Team: "default", Permissions: []string{"certificates.*"}},
	}, token))
	r.addToken("the API token", token.GetSecret())
	admin, err := os.ReadFile(r.Running.AdminTokenFile)
	require.NoError(t, err)
	r.addToken("the administrator's token", strings.TrimSpace(string(admin)))
	// The token in use leaves its traces too, if any.
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(token.GetSecret()), 0o600))
	ci, err := client.New(r.Running.Edge, r.Running.EdgeRoots, file)
	require.NoError(t, err)
	require.NoError(t, ci.Call(ctx, http.MethodGet, "/v1/certificates", nil, nil))
	require.Error(t, ci.Call(ctx, http.MethodGet, "/v1/tokens", nil, nil))
}

// external makes an issuer that is bound to an external account which the CA does not know, and lets an order try it.
func (r *secretRun) external(ctx context.Context) {
	r.t.Helper()
	hmac := []byte("an HMAC key of 32 bytes, no more")
	key := base64.RawURLEncoding.EncodeToString(hmac)
	bound := &ordersv1.Issuer{}
	require.NoError(r.t, r.Call(ctx, http.MethodPost, "/v1/issuers", &ordersv1.CreateIssuerRequest{RequestId: "bound", Issuer: &ordersv1.Issuer{
		DisplayName: "bound", Kind: "acme", Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: r.CA.DirectoryURL(), TrustRootsPem: string(r.CA.TLSRootPEM()), TermsAgreed: true,
			ExternalAccount: &ordersv1.ExternalAccount{KeyId: "kid-1", HmacKey: key},
		},
	}}, bound))
	require.Empty(r.t, bound.GetAcme().GetExternalAccount().GetHmacKey())
	r.addText("the HMAC key", key, hmac)
	made, err := r.Request(ctx, bound.GetId(), "http-01", nil, "bound.shop.test")
	require.NoError(r.t, err)
	until(ctx, r.t, func() string {
		o, err := r.Order(ctx, made.GetIntent().GetOrderId())
		if err != nil {
			return err.Error()
		}
		if o.GetState() == "failed" || o.GetState() == "issued" || o.GetBlocked() != nil {
			return ""
		}
		return o.GetState()
	})
}

func (r *secretRun) mailChannel(user, password string) *notificationsv1.CreateChannelRequest {
	return &notificationsv1.CreateChannelRequest{RequestId: "channel of " + user, Channel: &notificationsv1.Channel{
		DisplayName: "mail as " + user, Kind: "smtp", Smtp: &notificationsv1.SMTP{
			Server: r.Mail.Addr(), Security: "starttls", Username: user, Password: password, From: "certwright@shop.test", To: []string{"ops@shop.test"},
			TrustRootsPem: string(r.Mail.RootPEM()),
		},
	}}
}

func (r *secretRun) addToken(name, secret string) {
	r.t.Helper()
	random, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, "cwt_"))
	require.NoError(r.t, err)
	r.addText(name, secret, random)
}

// issue gets a certificate, deploys the one of www, and exports its key.
func (r *secretRun) issue(ctx context.Context, challenge, issuer, algorithm string, names ...string) *inventoryv1.Certificate {
	r.t.Helper()
	var deployTo []string
	if names[0] == "www.shop.test" {
		deployTo = []string{r.target}
	}
	made := &inventoryv1.Certificate{}
	require.NoError(r.t, r.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{DeployTo: deployTo, Certificate: &inventoryv1.Certificate{
		Owner: "shop@shop.test", Spec: &typesv1.CertificateSpec{Issuer: issuer, Names: names, KeyAlgorithm: algorithm, Challenge: &typesv1.ChallengeSpec{Type: challenge}},
	}}, made))
	got, err := r.Version(ctx, made.GetId(), "")
	require.NoError(r.t, err)
	r.export(ctx)
	return got
}

// export takes every key that is there over the API, as one with the right to do so.
func (r *secretRun) export(ctx context.Context) {
	r.t.Helper()
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	all := &keysv1.ListKeysResponse{}
	require.NoError(r.t, stage.Until(ctx, r.Stage, "/v1/keys", all, func(all *keysv1.ListKeysResponse) bool {
		return !slices.ContainsFunc(all.GetKeys(), func(k *keysv1.Key) bool { return k.GetState() == "pre_active" })
	}))
	for _, k := range all.GetKeys() {
		if r.seen[k.GetId()] || k.GetState() == "destroyed" {
			continue
		}
		out := &keysv1.ExportKeyResponse{}
		require.NoError(r.t, r.Call(ctx, http.MethodPost, "/v1/keys/"+k.GetId()+":export", &keysv1.ExportKeyRequest{}, out))
		r.seen[k.GetId()] = true
		r.add(privateKey(r.t, "the certificate key "+k.GetId(), parseKey(r.t, []byte(out.GetPrivateKeyPem()))))
	}
}

// renew renews the certificate and waits until the site serves the new one.
func (r *secretRun) renew(ctx context.Context, c *inventoryv1.Certificate) {
	r.t.Helper()
	first := c.GetCurrentVersion().GetFacts().GetVersionId()
	planned(ctx, r.t, r.Stage, c.GetId(), first)
	require.NoError(r.t, r.Call(ctx, http.MethodPost, "/v1/certificates/"+c.GetId()+":renew", &inventoryv1.RenewCertificateRequest{}, nil))
	renewed, err := r.Version(ctx, c.GetId(), first)
	require.NoError(r.t, err)
	r.export(ctx)
	require.Len(r.t, r.seen, 3)
	require.NoError(r.t, stage.Until(ctx, r.Stage, "/v1/bindings", &deployerv1.ListBindingsResponse{}, func(all *deployerv1.ListBindingsResponse) bool {
		return len(all.GetBindings()) == 1 && all.GetBindings()[0].GetServedVersionId() == renewed.GetCurrentVersion().GetFacts().GetVersionId()
	}))
}

// mistakes are requests that are refused or fail with a secret in them: what is said about them is where secrets leak.
func (r *secretRun) mistakes(ctx context.Context, issuer string) {
	t := r.t
	t.Helper()
	wrong := &notificationsv1.Channel{}
	const typo = "not-the-password-of-anybody-2"
	require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/channels", r.mailChannel("somebody", typo), wrong))
	test := &notificationsv1.TestChannelResponse{}
	_ = r.Call(ctx, http.MethodPost, "/v1/channels/"+wrong.GetId()+":test", &notificationsv1.TestChannelRequest{}, test)
	r.addText("the wrong SMTP password", typo)
	require.NoError(t, r.Call(ctx, http.MethodDelete, "/v1/channels/"+wrong.GetId(), nil, nil))

	tsig := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("another secret! "), 2))
	other := &dnsv1.DNSAccount{}
	require.NoError(t, r.Call(ctx, http.MethodPost, "/v1/dnsAccounts", &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{
		DisplayName: "wrong key", Provider: "rfc2136", Zones: []string{"other.test"},
		Rfc2136: &dnsv1.RFC2136{Server: r.DNS.Addr(), TsigKeyName: r.Key.Name, TsigSecret: tsig, TtlSeconds: 60},
	}}, other))
	_ = r.Call(ctx, http.MethodPost, "/v1/dnsAccounts/"+other.GetId()+":test", &dnsv1.TestDNSAccountRequest{}, nil)
	r.addText("the wrong TSIG secret", tsig, unbase64(t, tsig))

	for i, body := range []string{
		`{"channel":{"displayName":"x","kind":"smtp","smtp":{"server":"nonsense","username":"u","password":%q}}}`,
		`{"channel":{"displayName":"x","kind":"webhook","webhook":{"url":"http://127.0.0.1:1/","secret":%q}}}`,
		`{"channel":{"displayName":"x","kind":"smtp","smtp":{"passwort":%q}}}`,
		`{"channel":{"displayName":"x","kind":"smtp","smtp":{"password":%q`,
	} {
		secret := fmt.Sprintf("sent-with-a-mistake-number-%d", i)
		_, err := r.Raw(ctx, http.MethodPost, "/v1/channels", fmt.Appendf(nil, body, secret))
		require.Error(t, err)
		r.addText(fmt.Sprintf("the secret of bad request %d", i), secret)
	}
	file := filepath.Join(t.TempDir(), "token")
	unknown := "cwt_" + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("wrong token here"), 2))
	require.NoError(t, os.WriteFile(file, []byte(unknown), 0o600))
	stranger, err := client.New(r.Running.Edge, r.Running.EdgeRoots, file)
	require.NoError(t, err)
	require.Error(t, stranger.Call(ctx, http.MethodGet, "/v1/certificates", nil, nil))
	r.addToken("the token that nobody has", unknown)
}

// atRest collects the secrets that never leave: ACME account keys, key-encryption keys and the edge's keys.
func (r *secretRun) atRest(ctx context.Context, data string) {
	t := r.t
	t.Helper()
	opened := filepath.Join(t.TempDir(), "orders.db") // opening writes to it: a copy
	copyFile(t, filepath.Join(data, "orders", "orders.db"), opened)
	store, err := sqlite.Open(ctx, sqlite.Options{Path: opened, Clock: clock.System()})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	sealer, err := seal.OpenKEK(ctx, store, filepath.Join(data, "orders", "orders.kek"), "orders")
	require.NoError(t, err)
	require.NoError(t, store.Ensure(ctx, docstore.Spec{Name: "accounts"}))
	page, err := store.Find(ctx, "accounts", docstore.Query{Limit: 100})
	require.NoError(t, err)
	require.Len(t, page.Docs, 2)
	for _, raw := range page.Docs {
		var doc docstore.Doc[struct {
			Key seal.Sealed `bson:"key"`
		}]
		require.NoError(t, bson.Unmarshal(raw, &doc))
		der, err := sealer.Open(ctx, doc.Body.Key, []byte(doc.ID))
		require.NoError(t, err)
		key, err := x509.ParsePKCS8PrivateKey(der)
		require.NoError(t, err)
		r.add(privateKey(t, "the ACME account key "+doc.ID, key))
	}
	for _, name := range kept {
		file := filepath.Join(data, name)
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		switch filepath.Ext(name) {
		case ".kek":
			block, _ := pem.Decode(content)
			require.NotNil(t, block, name)
			r.add(wanted{"the KEK " + name, encodings("raw key", block.Bytes), written("raw key", block.Bytes)})
		case ".key":
			r.add(privateKey(t, "the key "+name, parseKey(t, content)))
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, b, 0o600))
}
