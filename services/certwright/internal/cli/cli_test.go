package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
)

var update = flag.Bool("update", false, "write the golden files")

const token = "cwt_do-not-print-me" //nolint:gosec // of the fake edge

var t0 = time.Date(2026, 3, 1, 21, 0, 0, 0, time.UTC)

// leaping is a clock whose sleeps are over at once; its timers never fire before their time has been slept.
type leaping struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time
}

func newLeaping() *leaping { return &leaping{now: t0, timers: map[chan time.Time]time.Time{}} }

func (l *leaping) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *leaping) Sleep(ctx context.Context, d time.Duration) error {
	l.mu.Lock()
	l.now = l.now.Add(d)
	fired := false
	for c, at := range l.timers {
		if !at.After(l.now) {
			delete(l.timers, c)
			c <- l.now
			fired = true
		}
	}
	l.mu.Unlock()
	if fired { // whoever waits for the timer comes first
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
	return ctx.Err()
}

func (l *leaping) After(d time.Duration) (<-chan time.Time, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan time.Time, 1)
	l.timers[c] = l.now.Add(d)
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.timers, c)
	}
}

// edge fakes the REST edge: one function a "METHOD path".
type edge struct {
	*httptest.Server
	mu       sync.Mutex
	handlers map[string]func(*http.Request, []byte) (proto.Message, error)
	calls    []string
	bodies   map[string]string // last body by "METHOD path"
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{handlers: map[string]func(*http.Request, []byte) (proto.Message, error){}, bodies: map[string]string{}}
	e.Server = httptest.NewTLSServer(e)
	e.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(e.Close)
	return e
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Method + " " + r.URL.Path
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.calls = append(e.calls, strings.TrimSuffix(key+"?"+r.URL.RawQuery, "?"))
	e.bodies[key] = string(body)
	h := e.handlers[key]
	e.mu.Unlock()
	var answer proto.Message
	err := error(errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "there is no %s here", key))
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token:
		err = errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the token is not known")
	case h != nil:
		answer, err = h(r, body)
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		s := rpc.ToStatus(err)
		text, _ := protojson.Marshal(s.Proto())
		w.WriteHeader(runtime.HTTPStatusFromCode(s.Code()))
		_, _ = w.Write(text)
		return
	}
	text, _ := protojson.Marshal(answer)
	_, _ = w.Write(text)
}

// on answers always the same.
func (e *edge) on(key string, m proto.Message) {
	e.does(key, func(*http.Request, []byte) (proto.Message, error) { return m, nil })
}

func (e *edge) fails(key string, err error) {
	e.does(key, func(*http.Request, []byte) (proto.Message, error) { return nil, err })
}

// then answers one after the other, the last one for ever. A value is a message or an error.
func (e *edge) then(key string, answers ...any) {
	n := 0
	e.does(key, func(*http.Request, []byte) (proto.Message, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		a := answers[min(n, len(answers)-1)]
		n++
		if err, ok := a.(error); ok {
			return nil, err
		}
		return a.(proto.Message), nil
	})
}

func (e *edge) does(key string, h func(*http.Request, []byte) (proto.Message, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handlers[key] = h
}

func (e *edge) body(t *testing.T, key string, into proto.Message) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	require.Contains(t, e.bodies, key)
	require.NoError(t, protojson.Unmarshal([]byte(e.bodies[key]), into))
}

// user is somebody at a command line.
type user struct {
	t    *testing.T
	o    Options
	out  bytes.Buffer
	err  bytes.Buffer
	env  map[string]string
	ctx  context.Context
	home string
}

// newUser is somebody whose environment names the edge; a nil edge names none.
func newUser(t *testing.T, e *edge) *user {
	t.Helper()
	u := &user{t: t, env: map[string]string{}, ctx: t.Context(), home: t.TempDir()}
	u.o = Options{
		Version: "v1.2.3", In: strings.NewReader(""), Out: &u.out, Err: &u.err, Getenv: func(k string) string { return u.env[k] }, Home: u.home, Clock: newLeaping(), Zone: time.UTC,
	}
	if e != nil {
		u.env[EnvURL], u.env[EnvToken], u.env[EnvCAFile] = e.URL, token, caFile(t, e)
	}
	return u
}

func caFile(t *testing.T, e *edge) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw})
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

func (u *user) run(args ...string) int {
	u.t.Helper()
	u.out.Reset()
	u.err.Reset()
	code := Run(u.ctx, u.o, args, Serve(func(context.Context, Serving) error { return nil }))
	require.NotContains(u.t, u.out.String()+u.err.String(), token, "the token is never printed")
	return code
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "make it with: go test ./internal/cli -update")
	require.Equal(t, string(want), got)
}

func at(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(t0.Add(d)) }

func exampleCertificate() *inventoryv1.Certificate {
	return &inventoryv1.Certificate{
		Id: "crt_1", DisplayName: "website", Owner: "web@example.org", Team: "default", Labels: []string{"billing=1234"}, State: "active", SpecGeneration: 1,
		Spec: &typesv1.CertificateSpec{Issuer: "iss_1", Names: []string{"www.example.org", "example.org"}, KeyAlgorithm: "ECDSA_P256", Challenge: &typesv1.ChallengeSpec{Type: "auto"}},
		CurrentVersion: &inventoryv1.Version{State: "current", Facts: &typesv1.VersionFacts{
			VersionId: "ver_1", Number: 1, OrderId: "ord_1", NotBefore: at(0), NotAfter: at(90 * 24 * time.Hour), Serial: "0a1b", FingerprintSha256: "c0ffee", IssuerName: "CN=Test CA",
		}},
		Intent:  &inventoryv1.Intent{Number: 1, OrderId: "ord_1", Outcome: "issued", Cause: "create", SpecGeneration: 1},
		Renewal: &inventoryv1.RenewalStatus{State: "planned", DueAt: at(60 * 24 * time.Hour), Explanation: "two thirds of its life"},
	}
}

func TestHelpIsAsPublished(t *testing.T) {
	for _, c := range []struct{ name, args string }{
		{"help.txt", "--help"},
		{"help-certificates.txt", "certificates"},
		{"help-certificates-request.txt", "certificates request --help"},
		{"help-certificates-export.txt", "certificates export --help"},
		{"help-serve.txt", "serve --help"},
		{"help-events-tail.txt", "events tail --help"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUser(t, nil)
			require.Equal(t, ExitOK, u.run(strings.Fields(c.args)...), u.err.String())
			golden(t, c.name, u.out.String())
		})
	}
}

func TestResultsHaveOneShapeInEachFormat(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/certificates/crt_1", exampleCertificate())
	pending := &inventoryv1.Certificate{Id: "crt_2", State: "pending", Spec: &typesv1.CertificateSpec{Names: []string{"a.example\x1b[31m"}}}
	e.on("GET /v1/certificates", &inventoryv1.ListCertificatesResponse{Certificates: []*inventoryv1.Certificate{exampleCertificate(), pending}})
	for _, c := range []struct{ name, args string }{
		{"get.txt", "certificates get crt_1"},
		{"get.json", "certificates get crt_1 --output json"},
		{"get.yaml", "certificates get crt_1 -o yaml"},
		{"list.txt", "certificates list"},
		{"list.json", "certificates list -o json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUser(t, e)
			require.Equal(t, ExitOK, u.run(strings.Fields(c.args)...), u.err.String())
			golden(t, c.name, u.out.String())
			require.NotContains(t, u.out.String(), "\x1b", "nothing commands the terminal")
		})
	}
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "get", "crt_1", "-o", "json"))
	got := &inventoryv1.Certificate{}
	require.NoError(t, protojson.Unmarshal(u.out.Bytes(), got))
	require.True(t, proto.Equal(exampleCertificate(), got), "JSON is the API's")
}

func TestExitCodesTellScriptsWhatHappened(t *testing.T) {
	get := "GET /v1/certificates/crt_1"
	bad := errs.New(errs.Invalid, "BAD_SPEC", "the certificate is not valid").WithField("spec.names[0]", "%q given", "-").WithField("owner", "missing")
	for _, c := range []struct {
		name string
		args string
		err  error
		code int
		says []string
	}{
		{name: "all went well", args: "certificates get crt_1", code: ExitOK},
		{name: "an unknown command", args: "certifcates get crt_1", code: ExitUsage, says: []string{"unknown command", `"certwright --help"`}},
		{name: "an unknown verb", args: "certificates gte crt_1", code: ExitUsage, says: []string{"did you mean get", `"certwright certificates --help"`}},
		{name: "an unknown flag", args: "certificates get crt_1 --no-such", code: ExitUsage, says: []string{"--no-such"}},
		{name: "a missing argument", args: "certificates get", code: ExitUsage, says: []string{"accepts 1 arg"}},
		{name: "an unknown format", args: "certificates get crt_1 -o xml", code: ExitUsage, says: []string{"table, json and yaml"}},
		{name: "a number that is none", args: "certificates list --limit many", code: ExitUsage, says: []string{"--limit"}},
		{name: "a moment that is none", args: "certificates list --expires-before soon", code: ExitUsage, says: []string{"2027-01-31"}},
		{name: "a label without a key", args: "certificates request a.example --label x", code: ExitUsage, says: []string{"key=value"}},
		{name: "a delete that nobody can confirm", args: "certificates delete crt_1", code: ExitUsage, says: []string{"--yes"}},
		{name: "a key that would go to a terminal", args: "certificates export crt_1 --with-key", code: ExitUsage, says: []string{"--out DIR"}},
		{name: "an export in no known format", args: "certificates export crt_1 --format pfx", code: ExitUsage, says: []string{"allowed are pem, der, csr, pkcs12, pkcs12-legacy, jks"}},
		{name: "a keystore without a password", args: "certificates export crt_1 --format jks --out x", code: ExitUsage, says: []string{"needs --password-file"}},
		{name: "a keystore that would go to a terminal", args: "certificates export crt_1 --format pkcs12 --password-file p", code: ExitUsage, says: []string{"has the key in it", "--out DIR"}},
		{name: "a password for what is not encrypted", args: "certificates export crt_1 --password-file p", code: ExitUsage, says: []string{"not with pem"}},
		{name: "a key beside DER", args: "certificates export crt_1 --format der --with-key --out x", code: ExitUsage, says: []string{"--with-key goes with --format pem"}},
		{name: "an insecure URL", args: "certificates get crt_1 --url http://192.0.2.1", code: ExitUsage, says: []string{"unencrypted"}},
		{name: "nothing is there", args: "certificates get crt_1", err: errs.New(errs.NotFound, "NOT_FOUND", "there is no certificate"), code: ExitNotFound, says: []string{"error: there is no certificate"}},
		{name: "invalid input", args: "certificates get crt_1", err: bad, code: ExitRefused, says: []string{"error: the certificate is not valid\n", "\n  spec.names[0]: \"-\" given\n", "\n  owner: missing\n", "reason: BAD_SPEC"}},
		{name: "the state does not allow it", args: "certificates get crt_1", err: errs.New(errs.Precondition, "ORDER_STATE", "it is final"), code: ExitRefused, says: []string{"ORDER_STATE"}},
		{name: "not permitted", args: "certificates get crt_1", err: errs.New(errs.Forbidden, "PERMISSION_DENIED", "no"), code: ExitDenied, says: []string{"PERMISSION_DENIED"}},
		{name: "not known", args: "certificates get crt_1", err: errs.New(errs.Unauthenticated, "TOKEN_EXPIRED", "no"), code: ExitDenied, says: []string{"TOKEN_EXPIRED"}},
		{name: "not now", args: "certificates get crt_1", err: errs.New(errs.Unavailable, "STARTING", "not yet").WithRetryAfter(30 * time.Second), code: ExitUnavailable, says: []string{"try again in 30s"}},
		{name: "too many", args: "certificates get crt_1", err: errs.New(errs.RateLimited, "TOO_MANY", "slow down"), code: ExitUnavailable, says: []string{"TOO_MANY"}},
		{name: "a fault inside", args: "certificates get crt_1", err: errs.New(errs.Internal, "", "boom"), code: ExitError, says: []string{"internal error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t)
			e.on(get, exampleCertificate())
			if c.err != nil {
				e.fails(get, c.err)
			}
			u := newUser(t, e)
			require.Equal(t, c.code, u.run(strings.Fields(c.args)...), u.err.String())
			for _, s := range c.says {
				require.Contains(t, u.err.String(), s)
			}
			if c.code == ExitUsage {
				require.Empty(t, e.calls, "nothing was sent")
			}
		})
	}
}

func TestEveryKindOfErrorHasAnExitCode(t *testing.T) {
	for _, k := range errs.Kinds() {
		code := exitOfKind(k)
		require.NotEqual(t, ExitOK, code, k)
		require.NotEqual(t, ExitUsage, code, k)
		require.Contains(t, exitCodesHelp, "\n  "+string(rune('0'+code))+"  ")
	}
}

func TestTheNetworksErrorsSayWhatWasTriedAndHowToMend(t *testing.T) {
	e := newEdge(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	proxy := newEdge(t)
	proxy.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) })
	gone := httptest.NewTLSServer(http.NotFoundHandler())
	gone.Close()
	for _, c := range []struct {
		name, url, ca string
		says          []string
	}{
		{name: "an authority that is not trusted", url: e.URL, says: []string{e.URL, "--ca-file", "edge-ca.pem"}},
		{name: "nobody listens", url: gone.URL, says: []string{gone.URL, "is certwright serve running"}},
		{name: "no TLS", url: strings.Replace(plain.URL, "http:", "https:", 1), says: []string{"does not speak TLS", "http://"}},
		{name: "a certificate for another name", url: strings.Replace(e.URL, "127.0.0.1", "localhost", 1), ca: caFile(t, e), says: []string{"use a name that the certificate is for"}},
		{name: "a proxy in between", url: proxy.URL, ca: caFile(t, proxy), says: []string{"502 Bad Gateway", "proxy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUser(t, nil)
			u.env[EnvURL], u.env[EnvToken], u.env[EnvCAFile] = c.url, token, c.ca
			require.Equal(t, ExitUnavailable, u.run("certificates", "get", "crt_1"), u.err.String())
			for _, s := range c.says {
				require.Contains(t, u.err.String(), s)
			}
		})
	}
}

func TestTheConnectionIsFoundWhereTheHelpSays(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/certificates", &inventoryv1.ListCertificatesResponse{})
	ca := caFile(t, e)
	tokenFile := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(tokenFile, []byte(token+"\n"), 0o600))

	t.Run("flags win over the environment", func(t *testing.T) {
		u := newUser(t, nil)
		u.env[EnvURL], u.env[EnvToken] = "https://192.0.2.1", "other"
		require.Equal(t, ExitOK, u.run("certificates", "list", "--url", e.URL, "--token-file", tokenFile, "--ca-file", ca), u.err.String())
	})
	t.Run("the environment may name a file", func(t *testing.T) {
		u := newUser(t, nil)
		u.env[EnvURL], u.env[EnvTokenFile], u.env[EnvCAFile] = e.URL, tokenFile, ca
		require.Equal(t, ExitOK, u.run("certificates", "list"), u.err.String())
	})
	t.Run("login stores it for the owner alone, and no other edge ever gets the token", func(t *testing.T) {
		u := newUser(t, nil)
		u.o.AskSecret = func(string) (string, error) { return token + "\n", nil }
		require.Equal(t, ExitOK, u.run("login", "--url", e.URL, "--ca-file", ca), u.err.String())
		file := filepath.Join(u.home, ".config", "certwright", "cli.yaml")
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		require.NoError(t, os.Remove(ca), "a copy is kept")
		require.Equal(t, ExitOK, u.run("certificates", "list"), u.err.String())
		other := newEdge(t)
		require.Equal(t, ExitDenied, u.run("certificates", "list", "--url", other.URL, "--ca-file", caFile(t, other)))
		require.Contains(t, u.err.String(), "TOKEN_MISSING")
		require.Empty(t, other.calls)
		require.NoError(t, os.Chmod(file, 0o644))
		require.Equal(t, ExitRefused, u.run("certificates", "list"))
		require.Contains(t, u.err.String(), "chmod 600")
	})
	t.Run("login honours XDG_CONFIG_HOME and refuses a token that the edge does not know", func(t *testing.T) {
		u := newUser(t, e)
		dir := t.TempDir()
		u.env["XDG_CONFIG_HOME"] = dir
		u.env[EnvCAFile] = caFile(t, e)
		u.env[EnvToken] = "wrong"
		require.Equal(t, ExitDenied, u.run("login"), u.err.String())
		require.NoFileExists(t, filepath.Join(dir, "certwright", "cli.yaml"))
		u.env[EnvToken] = token
		require.Equal(t, ExitOK, u.run("login"), u.err.String())
		require.FileExists(t, filepath.Join(dir, "certwright", "cli.yaml"))
	})
	t.Run("the local platform is found by its data directory", func(t *testing.T) {
		u := newUser(t, nil)
		dir := filepath.Join(u.home, ".certwright", "gateway")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(u.home, ".certwright", "admin.token"), []byte(token), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "edge-ca.pem"), []byte("-----BEGIN CERTIFICATE-----"), 0o600))
		at, err := (&app{Options: u.o}).connection()
		require.NoError(t, err)
		require.Equal(t, DefaultURL, at.url.String())
		require.Equal(t, token, at.token.Reveal())
		require.NotEmpty(t, at.roots)
		at, err = (&app{Options: u.o, url: "https://other.example"}).connection()
		require.NoError(t, err)
		require.True(t, at.token.IsZero(), "what is of this machine stays here")
		require.Empty(t, at.roots)
	})
	t.Run("without a token nothing is sent", func(t *testing.T) {
		u := newUser(t, e)
		delete(u.env, EnvToken)
		require.Equal(t, ExitDenied, u.run("certificates", "list"))
		require.Contains(t, u.err.String(), "certwright login")
	})
}

func TestListsFilterAndPage(t *testing.T) {
	e := newEdge(t)
	e.does("GET /v1/certificates", func(r *http.Request, _ []byte) (proto.Message, error) {
		switch r.URL.Query().Get("pageToken") {
		case "":
			return &inventoryv1.ListCertificatesResponse{Certificates: []*inventoryv1.Certificate{{Id: "crt_1"}}, NextPageToken: "2"}, nil
		default:
			return &inventoryv1.ListCertificatesResponse{Certificates: []*inventoryv1.Certificate{{Id: "crt_2"}}}, nil
		}
	})
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "list", "--owner", "web@example.org", "--label", "a=1", "--label", "b=2", "--expires-before", "30d", "--filter", "team=x", "--limit", "0"), u.err.String())
	require.Contains(t, u.out.String(), "crt_1")
	require.Contains(t, u.out.String(), "crt_2")
	require.Len(t, e.calls, 2)
	require.Contains(t, e.calls[0], "filter=owner%3Dweb%40example.org+AND+label%3Da%3D1+AND+label%3Db%3D2+AND+expires_before%3D2026-03-31T21%3A00%3A00Z+AND+team%3Dx")

	require.Equal(t, ExitOK, u.run("certificates", "list", "--limit", "1"))
	require.NotContains(t, u.out.String(), "crt_2")
	require.Contains(t, u.err.String(), "--limit 0")
}

func TestARequestSaysEverythingThatWasAsked(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/issuers/my ca", &ordersv1.Issuer{Id: "iss_1"})
	e.on("POST /v1/certificates", exampleCertificate())
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "request", "www.example.org", "example.org", "--issuer", "my ca", "--owner", "web@example.org", "--team", "web", "--key-algorithm", "RSA_2048", "--profile", "short",
		"--challenge", "dns-01", "--manual", "--label", "a=1", "--deploy-to", "tgt_1", "--allow-duplicate", "--request-id", "r1", "--display-name", "website", "--not-after", "10d"), u.err.String())
	got := &inventoryv1.CreateCertificateRequest{}
	e.body(t, "POST /v1/certificates", got)
	want := &inventoryv1.CreateCertificateRequest{RequestId: "r1", DeployTo: []string{"tgt_1"}, Certificate: &inventoryv1.Certificate{
		DisplayName: "website", Owner: "web@example.org", Team: "web", Labels: []string{"a=1"}, AllowDuplicate: true, Spec: &typesv1.CertificateSpec{
			Issuer: "iss_1", Names: []string{"www.example.org", "example.org"}, KeyAlgorithm: "RSA_2048", Profile: "short", Challenge: &typesv1.ChallengeSpec{Type: "dns-01", Manual: true}, NotAfter: at(10 * 24 * time.Hour),
		},
	}}
	require.True(t, proto.Equal(want, got), got.String())
}

func TestAnIssuersUpdateNamesWhatWasGivenAndNothingElse(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/issuers", &ordersv1.ListIssuersResponse{Issuers: []*ordersv1.Issuer{{Id: "iss_1", DisplayName: "zero"}}})
	e.on("PATCH /v1/issuers/iss_1", &ordersv1.Issuer{Id: "iss_1"})
	u := newUser(t, e)
	u.o.In = strings.NewReader("hmac-key\n")
	require.Equal(t, ExitOK, u.run("issuers", "update", "zero", "--agree-terms", "--preferred-chain", "", "--eab-key-id", "kid", "--eab-hmac-file", "-", "--etag", "3"), u.err.String())
	got := &ordersv1.UpdateIssuerRequest{}
	e.body(t, "PATCH /v1/issuers/iss_1", got)
	require.True(t, proto.Equal(&ordersv1.UpdateIssuerRequest{
		Etag: "3", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"acme.external_account", "acme.preferred_chain", "acme.terms_agreed"}},
		Issuer: &ordersv1.Issuer{Acme: &ordersv1.AcmeIssuer{TermsAgreed: true, ExternalAccount: &ordersv1.ExternalAccount{KeyId: "kid", HmacKey: "hmac-key"}}},
	}, got), got.String())
	require.NotContains(t, u.out.String()+u.err.String(), "hmac-key")
	require.Equal(t, ExitUsage, u.run("issuers", "update", "zero"))
	require.Contains(t, u.err.String(), "nothing to change")
	require.Equal(t, ExitUsage, u.run("issuers", "update", "zero", "--eab-key-id", "kid"))
	require.Contains(t, u.err.String(), "belong together")
	require.Equal(t, ExitUsage, u.run("issuers", "create", "x"))
	require.Contains(t, u.err.String(), "issuers presets")
}

func TestARequestWithoutAnIssuerTakesTheOnlyOne(t *testing.T) {
	e := newEdge(t)
	e.on("POST /v1/certificates", exampleCertificate())
	one, two := &ordersv1.Issuer{Id: "iss_1", DisplayName: "a"}, &ordersv1.Issuer{Id: "iss_2", DisplayName: "b"}
	off := &ordersv1.Issuer{Id: "iss_3", DisplayName: "c", Disabled: true}
	u := newUser(t, e)
	e.on("GET /v1/issuers", &ordersv1.ListIssuersResponse{Issuers: []*ordersv1.Issuer{one, off}})
	require.Equal(t, ExitOK, u.run("certificates", "request", "a.example"), u.err.String())
	got := &inventoryv1.CreateCertificateRequest{}
	e.body(t, "POST /v1/certificates", got)
	require.Equal(t, "iss_1", got.GetCertificate().GetSpec().GetIssuer())
	require.NotEmpty(t, got.GetRequestId())
	e.on("GET /v1/issuers", &ordersv1.ListIssuersResponse{Issuers: []*ordersv1.Issuer{one, two}})
	require.Equal(t, ExitUsage, u.run("certificates", "request", "a.example"))
	require.Contains(t, u.err.String(), "a, b")
	e.on("GET /v1/issuers", &ordersv1.ListIssuersResponse{})
	require.Equal(t, ExitRefused, u.run("certificates", "request", "a.example"))
	require.Contains(t, u.err.String(), "issuers create")
}

func TestARequestThatMayHaveArrivedSaysHowToRepeatIt(t *testing.T) {
	e := newEdge(t)
	e.fails("POST /v1/certificates", errs.New(errs.Unavailable, "X", "down"))
	u := newUser(t, e)
	require.Equal(t, ExitUnavailable, u.run("certificates", "request", "a.example", "--issuer", "iss_1"))
	got := &inventoryv1.CreateCertificateRequest{}
	e.body(t, "POST /v1/certificates", got)
	require.Contains(t, u.err.String(), "--request-id "+got.GetRequestId())
}

func TestANameStandsForItsOnlyCertificate(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/certificates/crt_1", exampleCertificate())
	e.on("GET /v1/certificates", &inventoryv1.ListCertificatesResponse{Certificates: []*inventoryv1.Certificate{{Id: "crt_1"}}})
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "get", "www.example.org"), u.err.String())
	e.on("GET /v1/certificates", &inventoryv1.ListCertificatesResponse{Certificates: []*inventoryv1.Certificate{{Id: "crt_1"}, {Id: "crt_2"}}})
	require.Equal(t, ExitRefused, u.run("certificates", "get", "www.example.org"))
	require.Contains(t, u.err.String(), "crt_1, crt_2")
	e.on("GET /v1/certificates", &inventoryv1.ListCertificatesResponse{})
	require.Equal(t, ExitNotFound, u.run("certificates", "get", "www.example.org"))
}

func TestDeletingAsksAndTellsWhatStaysValid(t *testing.T) {
	e := newEdge(t)
	e.on("DELETE /v1/certificates/crt_1", &inventoryv1.DeleteCertificateResponse{Notice: "It stays valid until 2026-05-30."})
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "delete", "crt_1", "--yes"), u.err.String())
	require.Contains(t, u.out.String(), "It stays valid until 2026-05-30.")
	e.calls = nil
	u.o.AskSecret = func(string) (string, error) { return "", nil }
	u.o.In = strings.NewReader("n\n")
	require.Equal(t, ExitError, u.run("certificates", "delete", "crt_1"))
	require.Empty(t, e.calls)
	u.o.In = strings.NewReader("y\n")
	require.Equal(t, ExitOK, u.run("certificates", "delete", "crt_1"))
}

func TestServePassesOnlyWhatWasGiven(t *testing.T) {
	u := newUser(t, nil)
	var got Serving
	serve := Serve(func(_ context.Context, s Serving) error {
		got = s
		s.Started(Started{URL: "https://127.0.0.1:1", TokenFile: "/d/admin.token", CAFile: "/d/ca.pem"})
		return nil
	})
	require.Equal(t, ExitOK, Run(u.ctx, u.o, []string{"serve", "--https", ":9443", "--config", "c.yaml"}, serve))
	require.Equal(t, "c.yaml", got.File)
	require.Equal(t, map[string]string{"gateway.https": ":9443"}, got.Flags)
	require.Contains(t, u.err.String(), "https://127.0.0.1:1")
	require.Contains(t, u.err.String(), "/d/admin.token")
	require.Contains(t, u.err.String(), EnvCAFile+"=/d/ca.pem")
	wrong := Serve(func(context.Context, Serving) error { return errs.New(errs.Invalid, "CONFIG_INVALID", "bad") })
	require.Equal(t, ExitRefused, Run(u.ctx, u.o, []string{"serve"}, wrong))
}

func TestVersionIsReadableByPrograms(t *testing.T) {
	u := newUser(t, nil)
	require.Equal(t, ExitOK, u.run("version"))
	require.Contains(t, u.out.String(), "v1.2.3")
	require.Equal(t, ExitOK, u.run("version", "-o", "json"))
	var v map[string]string
	require.NoError(t, json.Unmarshal(u.out.Bytes(), &v))
	require.Equal(t, "v1.2.3", v["version"])
}

func TestCompletionOffersIdsAndNames(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/certificates", &inventoryv1.ListCertificatesResponse{Certificates: []*inventoryv1.Certificate{exampleCertificate()}})
	e.on("GET /v1/issuers", &ordersv1.ListIssuersResponse{Issuers: []*ordersv1.Issuer{{Id: "iss_1", DisplayName: "letsencrypt"}}})
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("__complete", "certificates", "get", ""))
	require.Contains(t, u.out.String(), "crt_1\twebsite")
	require.Equal(t, ExitOK, u.run("__complete", "certificates", "request", "a.example", "--issuer", ""))
	require.Contains(t, u.out.String(), "iss_1\tletsencrypt")
	require.Equal(t, ExitOK, u.run("completion", "bash"))
	require.Contains(t, u.out.String(), "certwright")
	e.Close()
	require.Equal(t, ExitOK, u.run("__complete", "certificates", "get", ""), "silent when the edge cannot be asked")
}

func TestTheReferenceNamesEveryCommand(t *testing.T) {
	u := newUser(t, nil)
	require.Equal(t, ExitOK, u.run("docs", "cli"))
	for _, s := range []string{"### certwright certificates request", "### certwright events tail", "## certwright serve", "`--token-file file`", "Exit codes:"} {
		require.Contains(t, u.out.String(), s)
	}
	require.NotContains(t, u.out.String(), u.home, "the reference is the same for everybody")
}
