package rpc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers with what its function returns.
type service struct {
	testpb.UnimplementedTestServiceServer
	answer func(context.Context) error
}

func (s service) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, s.answer(ctx)
}

func (s service) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	if err := out.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	return s.answer(out.Context())
}

// logs collects log lines; it is safe for concurrent use.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) lines(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for d := json.NewDecoder(bytes.NewReader(l.b.Bytes())); ; {
		var m map[string]any
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
}

// serve starts a server in process and returns a client of it.
func serve(t *testing.T, answer func(context.Context) error, so rpc.ServerOptions, co rpc.ClientOptions) (testpb.TestServiceClient, *logs) {
	t.Helper()
	out := &logs{}
	if so.Logger == nil {
		so.Logger = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r := rpc.NewInProcess()
	s := rpc.NewServer(so)
	testpb.RegisterTestServiceServer(s, service{answer: answer})
	l := r.Listen("test")
	go func() { _ = s.Serve(l) }()
	conn, err := r.Conn("test", co)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		require.NoError(t, rpc.Stop(context.Background(), s))
	})
	return testpb.NewTestServiceClient(conn), out
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var sameError = []cmp.Option{cmpopts.IgnoreUnexported(errs.Error{}), cmpopts.EquateEmpty()}

func TestEveryKindGoesThereAndBackUnchanged(t *testing.T) {
	seen := map[codes.Code]errs.Kind{}
	for _, k := range errs.Kinds() {
		t.Run(k.String(), func(t *testing.T) {
			code := rpc.CodeOf(k)
			require.NotEqual(t, codes.OK, code)
			require.NotEqual(t, codes.Unknown, code)
			require.NotContains(t, seen, code, "two kinds share a code")
			seen[code] = k
			require.Equal(t, k, rpc.KindOf(code))

			full := errs.New(k, "SOME_REASON", "message").WithField("spec.names[0]", "bad").WithField("b", "worse").WithMeta("a", "1").WithRetryAfter(90 * time.Second)
			s := rpc.ToStatus(fmt.Errorf("loading: %w", full))
			require.Equal(t, code, s.Code())
			require.Equal(t, "message", s.Message())
			back := errs.As(rpc.FromError(s.Err()))
			require.Empty(t, cmp.Diff(full, back, sameError...))
			require.ErrorIs(t, back, full)

			bare := errs.New(k, "", "message")
			back = errs.As(rpc.FromError(rpc.ToStatus(bare).Err()))
			require.Equal(t, k, back.Kind)
			require.Equal(t, errs.ReasonOf(bare), errs.ReasonOf(back))
			require.ErrorIs(t, back, bare, "a sentinel without reason is found again")

			client, _ := serve(t, func(context.Context) error { return full }, rpc.ServerOptions{}, rpc.ClientOptions{})
			_, err := client.EmptyCall(within(t), &testpb.Empty{})
			require.Empty(t, cmp.Diff(full, errs.As(err), sameError...), "over the wire")
		})
	}
	require.Len(t, seen, len(errs.Kinds()))
}

func TestEveryCodeHasAKind(t *testing.T) {
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		k := rpc.KindOf(c)
		require.Contains(t, errs.Kinds(), k)
		if c != codes.OutOfRange && c != codes.Unknown && c != codes.DataLoss && c != codes.OK {
			require.Equal(t, c, rpc.CodeOf(k), "%s", c)
		}
	}
}

func TestStatusHasTheStandardDetails(t *testing.T) {
	s := rpc.ToStatus(errs.New(errs.Invalid, "BAD_NAMES", "no").WithField("names", "empty").WithMeta("k", "v").WithRetryAfter(time.Second))
	var info *errdetails.ErrorInfo
	var bad *errdetails.BadRequest
	var retry *errdetails.RetryInfo
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.BadRequest:
			bad = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	require.Equal(t, "certwright", info.GetDomain())
	require.Equal(t, "BAD_NAMES", info.GetReason())
	require.Equal(t, map[string]string{"k": "v"}, info.GetMetadata())
	require.Equal(t, "names", bad.GetFieldViolations()[0].GetField())
	require.Equal(t, time.Second, retry.GetRetryDelay().AsDuration())
	require.Equal(t, codes.OK, rpc.ToStatus(nil).Code())
	require.NoError(t, rpc.FromError(nil))
}

func TestTextThatIsNotUTF8IsSentAllTheSame(t *testing.T) {
	s := rpc.ToStatus(errs.New(errs.Invalid, "R", "bad \xff").WithField("n\xff", "m\xff").WithMeta("k\xff", "v\xff"))
	require.Len(t, s.Details(), 2)
	client, _ := serve(t, func(context.Context) error { return s.Err() }, rpc.ServerOptions{}, rpc.ClientOptions{})
	_, err := client.EmptyCall(within(t), &testpb.Empty{})
	require.Equal(t, "bad \uFFFD", errs.As(err).Msg)
	require.Len(t, errs.As(err).Fields, 1)
}

func TestWhatTheCallerSeesAndWhatIsLogged(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(context.Context) error
		kind   errs.Kind
		msg    string
		level  string
		logged string
	}{
		{"an untyped error is hidden and logged in full", func(context.Context) error { return errors.New("password=hunter2") }, errs.Internal, "internal error; the log of the service has the details", "ERROR", "hunter2"},
		{"a wrapped untyped error too", func(context.Context) error { return fmt.Errorf("a: %w", os.ErrNotExist) }, errs.Internal, "internal error; the log of the service has the details", "ERROR", "a: file does not exist"},
		{"an internal error without reason too", func(context.Context) error { return errs.New(errs.Internal, "", "at %w", errors.New("hunter2")) }, errs.Internal, "internal error; the log of the service has the details", "ERROR", "hunter2"},
		{"an internal error with a reason is told", func(context.Context) error { return errs.New(errs.Internal, "RULE_MISSING", "told") }, errs.Internal, "told", "ERROR", "told"},
		{"a panic is hidden and logged with its stack", func(context.Context) error { panic("hunter2") }, errs.Internal, "internal error; the log of the service has the details", "ERROR", "rpc_test.go"},
		{"a typed error is told, without what wraps it", func(context.Context) error {
			return fmt.Errorf("inner detail: %w", errs.New(errs.NotFound, "", "no such order"))
		}, errs.NotFound, "no such order", "DEBUG", "inner detail: no such order"},
		{"a sibling that is down is a warning", func(context.Context) error { return errs.New(errs.Unavailable, "", "down") }, errs.Unavailable, "down", "WARN", "down"},
		{"a deadline inside is a timeout", func(context.Context) error { return fmt.Errorf("store: %w", context.DeadlineExceeded) }, errs.Timeout, "the call took longer than its deadline", "WARN", "store"},
		{"a method that nobody wrote is unimplemented", func(context.Context) error { return status.Error(codes.Unimplemented, "not here") }, errs.Unimplemented, "not here", "DEBUG", "not here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, out := serve(t, c.answer, rpc.ServerOptions{}, rpc.ClientOptions{})
			calls := map[string]func() error{
				"unary": func() error { _, err := client.EmptyCall(within(t), &testpb.Empty{}); return err },
				"stream": func() error {
					s, err := client.StreamingOutputCall(within(t), &testpb.StreamingOutputCallRequest{})
					require.NoError(t, err)
					_, err = s.Recv()
					require.NoError(t, err, "the first message comes")
					_, err = s.Recv()
					return err
				},
			}
			for name, call := range calls {
				before := len(out.lines(t))
				e := errs.As(call())
				require.NotNil(t, e, name)
				require.Equal(t, c.kind, e.Kind, name)
				require.Equal(t, c.msg, e.Msg, name)
				lines := out.lines(t)[before:]
				require.Len(t, lines, 1, "logged once")
				require.Equal(t, c.level, lines[0]["level"])
				require.Contains(t, lines[0]["error"], c.logged)
				require.Contains(t, lines[0]["method"], "/grpc.testing.TestService/")
			}
		})
	}
}

func TestAStreamEndsWithEOF(t *testing.T) {
	client, _ := serve(t, func(context.Context) error { return nil }, rpc.ServerOptions{}, rpc.ClientOptions{})
	s, err := client.StreamingOutputCall(within(t), &testpb.StreamingOutputCallRequest{})
	require.NoError(t, err)
	_, err = s.Recv()
	require.NoError(t, err)
	_, err = s.Recv()
	require.Equal(t, io.EOF, err)
}

func TestTheCallersDeadlineIsATimeout(t *testing.T) {
	client, _ := serve(t, func(ctx context.Context) error { <-ctx.Done(); return errors.New("late") }, rpc.ServerOptions{}, rpc.ClientOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := client.EmptyCall(ctx, &testpb.Empty{})
	require.Equal(t, errs.Timeout, errs.KindOf(err))
	gone, end := context.WithCancel(t.Context())
	end()
	_, err = client.EmptyCall(gone, &testpb.Empty{})
	require.Equal(t, errs.Canceled, errs.KindOf(err))
}

func TestInterceptorsRunInOrderInsideTheMapping(t *testing.T) {
	var order []string
	note := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			order = append(order, name)
			return next(ctx, req)
		}
	}
	refuse := func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		return nil, errs.New(errs.Forbidden, "NO", "no")
	}
	client, _ := serve(t, func(context.Context) error { return nil }, rpc.ServerOptions{Unary: []grpc.UnaryServerInterceptor{note("a"), note("b"), refuse}}, rpc.ClientOptions{})
	_, err := client.EmptyCall(within(t), &testpb.Empty{})
	require.Equal(t, "NO", errs.ReasonOf(err))
	require.Equal(t, []string{"a", "b"}, order)
}

func TestATraceGoesOnAcrossACall(t *testing.T) {
	tel, err := telemetry.New(t.Context(), telemetry.Config{SampleRatio: 1, Output: io.Discard})
	require.NoError(t, err)
	defer func() { _ = tel.Shutdown(context.Background()) }()
	var there trace.SpanContext
	client, _ := serve(t, func(ctx context.Context) error { there = trace.SpanContextFromContext(ctx); return nil },
		rpc.ServerOptions{TracerProvider: tel.TracerProvider(), MeterProvider: tel.MeterProvider()},
		rpc.ClientOptions{TracerProvider: tel.TracerProvider(), MeterProvider: tel.MeterProvider()})
	ctx, span := tel.Tracer("test").Start(within(t), "here")
	_, err = client.EmptyCall(ctx, &testpb.Empty{})
	require.NoError(t, err)
	require.Equal(t, span.SpanContext().TraceID(), there.TraceID())
	require.NotEqual(t, span.SpanContext().SpanID(), there.SpanID())
	families, err := tel.Registry().Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Contains(t, strings.Join(names, " "), "rpc_server")
}

func TestInProcessWaitsForAServiceAndTakesItBackAfterARestart(t *testing.T) {
	r := rpc.NewInProcess()
	conn, err := r.Conn("test", rpc.ClientOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	client := testpb.NewTestServiceClient(conn)

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = client.EmptyCall(short, &testpb.Empty{})
	require.Equal(t, errs.Timeout, errs.KindOf(err), "nobody listens yet")

	for range 2 {
		answered := make(chan error, 1)
		go func() {
			_, err := client.EmptyCall(within(t), &testpb.Empty{}, grpc.WaitForReady(true))
			answered <- err
		}()
		s := rpc.NewServer(rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
		testpb.RegisterTestServiceServer(s, service{answer: func(context.Context) error { return nil }})
		l := r.Listen("test")
		go func() { _ = s.Serve(l) }()
		require.NoError(t, <-answered)
		require.NoError(t, rpc.Stop(t.Context(), s))
	}
}

func TestStopCutsOffWhatDoesNotEnd(t *testing.T) {
	r, entered := rpc.NewInProcess(), make(chan struct{})
	s := rpc.NewServer(rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	testpb.RegisterTestServiceServer(s, service{answer: func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() }})
	l := r.Listen("test")
	go func() { _ = s.Serve(l) }()
	conn, err := r.Conn("test", rpc.ClientOptions{})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	done := make(chan error, 1)
	go func() { _, err := testpb.NewTestServiceClient(conn).EmptyCall(within(t), &testpb.Empty{}); done <- err }()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.Equal(t, "STOP_TIMEOUT", errs.ReasonOf(rpc.Stop(ctx, s)))
	require.Error(t, <-done)
}

// authority is a CA of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key, a.cert = a.make("ca", nil, true)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// make writes <name>.crt and <name>.key.
func (a *authority) make(name string, dns []string, ca bool) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: dns, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if ca {
		parent, signer, template.KeyUsage, template.ExtKeyUsage = template, key, x509.KeyUsageCertSign, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(a.t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	require.NoError(a.t, os.WriteFile(a.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return key, cert
}

func (a *authority) tls(name string) (server, client *tls.Config) {
	a.t.Helper()
	server, client, err := rpc.TLS(a.path(name+".crt"), a.path(name+".key"), a.path("ca.crt"))
	require.NoError(a.t, err)
	return server, client
}

func TestMutualTLS(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	ours.make("orders", []string{"orders.certwright"}, false)
	ours.make("keys", []string{"keys.certwright"}, false)
	foreign.make("orders", []string{"orders.certwright"}, false)
	server, _ := ours.tls("keys")
	_, client := ours.tls("orders")
	_, foreignCert := foreign.tls("orders")
	foreignCert.RootCAs = client.RootCAs
	nobody := client.Clone()
	nobody.GetClientCertificate = nil
	old := client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	_, foreignRoots := foreign.tls("orders")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := rpc.NewServer(rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler), TLS: server})
	testpb.RegisterTestServiceServer(s, service{answer: func(context.Context) error { return nil }})
	go func() { _ = s.Serve(l) }()
	defer s.Stop()

	for _, c := range []struct {
		name    string
		tls     *tls.Config
		service string
		ok      bool
	}{
		{"a sibling with a certificate of our CA is let in", client, "keys", true},
		{"a server that is another service is not called", client, "dns", false},
		{"a caller without certificate is refused", nobody, "keys", false},
		{"a caller with a certificate of another CA is refused", foreignCert, "keys", false},
		{"a server of another CA is not called", foreignRoots, "keys", false},
		{"TLS 1.2 is refused", old, "keys", false},
		{"plain text is refused", nil, "keys", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := rpc.Dial(l.Addr().String(), rpc.ClientOptions{TLS: c.tls, Service: c.service})
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = testpb.NewTestServiceClient(conn).EmptyCall(within(t), &testpb.Empty{})
			if c.ok {
				require.NoError(t, err)
				return
			}
			require.Equal(t, errs.Unavailable, errs.KindOf(err))
		})
	}
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	a := newAuthority(t)
	_, first := a.make("keys", []string{"keys.certwright"}, false)
	server, _ := a.tls("keys")
	serial := func() *big.Int {
		c, err := server.GetCertificate(nil)
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		require.NoError(t, err)
		return leaf.SerialNumber
	}
	require.Equal(t, first.SerialNumber, serial())

	// A half-written renewal changes nothing.
	require.NoError(t, os.WriteFile(a.path("keys.crt"), []byte("half"), 0o600))
	require.Equal(t, first.SerialNumber, serial())

	_, second := a.make("keys", []string{"keys.certwright"}, false)
	later := time.Now().Add(time.Minute)
	require.NoError(t, os.Chtimes(a.path("keys.crt"), later, later))
	require.Equal(t, second.SerialNumber, serial())
}

func TestTLSFilesThatCannotBeUsedAreNamed(t *testing.T) {
	a := newAuthority(t)
	a.make("keys", nil, false)
	empty := a.path("empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, files := range [][3]string{
		{a.path("none"), a.path("keys.key"), a.path("ca.crt")},
		{a.path("keys.crt"), a.path("none"), a.path("ca.crt")},
		{a.path("keys.crt"), a.path("keys.key"), a.path("none")},
		{a.path("keys.crt"), a.path("keys.key"), empty},
		{a.path("keys.crt"), a.path("ca.key"), a.path("ca.crt")},
	} {
		_, _, err := rpc.TLS(files[0], files[1], files[2])
		require.Equal(t, "TLS_FILE", errs.ReasonOf(err))
		require.Equal(t, errs.Precondition, errs.KindOf(err))
	}
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	_, err := rpc.Dial("\x00:::", rpc.ClientOptions{})
	require.Equal(t, errs.Invalid, errs.KindOf(err))
}

func TestAServerThatIsDownIsUnavailableAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	conn, err := rpc.Dial(l.Addr().String(), rpc.ClientOptions{})
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = testpb.NewTestServiceClient(conn).EmptyCall(within(t), &testpb.Empty{})
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
}
