package authz_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"

	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func keypair(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	return pub, key
}

var (
	alice  = authz.Principal{Subject: "token:tok_1", Name: "alice", Team: "web", Permissions: []string{"tokens.manage", "certificates.*"}}
	reader = authz.Principal{Subject: "token:tok_2", Name: "bob", Permissions: []string{"audit.read"}}
	root   = authz.Principal{Subject: "user:usr_1", Team: "*", Permissions: []string{"*"}}
)

func TestASignedPrincipalIsTakenOnlyAsItWasSigned(t *testing.T) {
	pub, key := keypair(t)
	otherPub, otherKey := keypair(t)
	signer := authz.NewSigner(key, "prod")
	token := signer.Sign(alice, time.Minute, now)
	body, sig, _ := strings.Cut(token, ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"token:tok_1","perms":["*"],"aud":"prod","iat":0,"exp":99999999999999}`))
	raw := base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(body)))

	for _, c := range []struct {
		name     string
		verifier *authz.Verifier
		token    string
		at       time.Time
		reason   string
	}{
		{"fresh it is valid", authz.NewVerifier("prod", pub), token, now, ""},
		{"just before its end it is valid", authz.NewVerifier("prod", pub), token, now.Add(time.Minute), ""},
		{"while keys are replaced both are trusted", authz.NewVerifier("prod", otherPub, pub), token, now, ""},
		{"clocks may differ a little", authz.NewVerifier("prod", pub), token, now.Add(-10 * time.Second), ""},
		{"after its end and the skew it is expired", authz.NewVerifier("prod", pub), token, now.Add(70 * time.Second), "TOKEN_EXPIRED"},
		{"from the future it is not valid", authz.NewVerifier("prod", pub), token, now.Add(-11 * time.Second), "TOKEN_INVALID"},
		{"in another installation it is not", authz.NewVerifier("lab", pub), token, now, "TOKEN_INVALID"},
		{"by a key that is not trusted it is not", authz.NewVerifier("prod", otherPub), token, now, "TOKEN_INVALID"},
		{"with no trusted key it is not", authz.NewVerifier("prod"), token, now, "TOKEN_INVALID"},
		{"with a malformed key it is not", authz.NewVerifier("prod", ed25519.PublicKey("short")), token, now, "TOKEN_INVALID"},
		{"with another body it is not", authz.NewVerifier("prod", pub), forged + "." + sig, now, "TOKEN_INVALID"},
		{"signed by a stranger it is not", authz.NewVerifier("prod", pub), authz.NewSigner(otherKey, "prod").Sign(root, time.Hour, now), now, "TOKEN_INVALID"},
		{"a signature for another purpose is none", authz.NewVerifier("prod", pub), body + "." + raw, now, "TOKEN_INVALID"},
		{"without a signature it is not", authz.NewVerifier("prod", pub), body + ".", now, "TOKEN_INVALID"},
		{"without a dot it is not", authz.NewVerifier("prod", pub), body, now, "TOKEN_INVALID"},
		{"with a signature that is no base64 it is not", authz.NewVerifier("prod", pub), body + ".***", now, "TOKEN_INVALID"},
		{"empty it is not", authz.NewVerifier("prod", pub), "", now, "TOKEN_INVALID"},
		{"for nobody it is not", authz.NewVerifier("prod", pub), signer.Sign(authz.Principal{Permissions: []string{"*"}}, time.Hour, now), now, "TOKEN_INVALID"},
		{"a huge one is not looked at", authz.NewVerifier("prod", pub), signer.Sign(authz.Principal{Subject: strings.Repeat("x", 20000)}, time.Hour, now), now, "TOKEN_INVALID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := c.verifier.Verify(c.token, c.at)
			if c.reason != "" {
				require.Equal(t, c.reason, errs.ReasonOf(err))
				require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
				require.True(t, p.IsZero())
				return
			}
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(alice, p))
		})
	}
}

func FuzzVerify(f *testing.F) {
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(f, err)
	_, stranger, err := ed25519.GenerateKey(nil)
	require.NoError(f, err)
	f.Add(authz.NewSigner(stranger, "prod").Sign(alice, time.Hour, now))
	f.Add("a.b")
	v, good := authz.NewVerifier("prod", pub), authz.NewSigner(key, "prod").Sign(alice, time.Hour, now)
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.Verify(token, now); err == nil && token != good {
			t.Fatalf("%q was taken", token)
		}
	})
}

func TestPermissionsMatchByNameOrWholeFamily(t *testing.T) {
	for _, c := range []struct {
		name, wanted string
		has          []string
		ok           bool
	}{
		{"the same name", "certificates.request", []string{"certificates.request"}, true},
		{"its family", "certificates.request", []string{"certificates.*"}, true},
		{"everything", "certificates.request", []string{"*"}, true},
		{"one among others", "certificates.request", []string{"orders.read", "certificates.request"}, true},
		{"another name", "certificates.request", []string{"certificates.read"}, false},
		{"another family", "certificates.request", []string{"orders.*"}, false},
		{"a longer name", "certificates.request", []string{"certificates.requests"}, false},
		{"a prefix is no family", "certificates.request", []string{"cert*", "certificates.re*"}, false},
		{"a family does not match itself", "certificates", []string{"certificates.*"}, false},
		{"nothing", "certificates.request", nil, false},
		{"an empty entry", "certificates.request", []string{""}, false},
		{"nothing wanted is not had", "", []string{"*", ""}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.ok, authz.Principal{Subject: "x", Permissions: c.has}.Has(c.wanted))
		})
	}
}

func TestAuthorize(t *testing.T) {
	rule := &optionsv1.Rule{Permission: "tokens.manage", Services: []string{"gateway"}}
	internal := &optionsv1.Rule{Services: []string{"gateway", "keys"}}
	public := &optionsv1.Rule{Public: true}
	for _, c := range []struct {
		name   string
		p      authz.Principal
		rule   *optionsv1.Rule
		kind   errs.Kind
		reason string
		says   []string
	}{
		{"a person with the permission may", alice, rule, 0, "", nil},
		{"a person with everything may", root, rule, 0, "", nil},
		{"a named service may", authz.ForService("gateway"), rule, 0, "", nil},
		{"a named service may without a permission in the rule", authz.ForService("keys"), internal, 0, "", nil},
		{"anybody may call what is public", authz.Principal{}, public, 0, "", nil},
		{"a service may call what is public", authz.ForService("dns"), public, 0, "", nil},
		{"nobody may not", authz.Principal{}, rule, errs.Unauthenticated, "TOKEN_MISSING", []string{"API token"}},
		{"a person without the permission hears what is wanted and what they have", reader, rule, errs.Forbidden, "PERMISSION_DENIED", []string{"tokens.manage", "audit.read", "token:tok_2"}},
		{"a person may not call what is for services", root, internal, errs.Forbidden, "PERMISSION_DENIED", []string{"gateway, keys"}},
		{"another service may not", authz.ForService("dns"), rule, errs.Forbidden, "PERMISSION_DENIED", []string{`"dns"`, "gateway"}},
		{"a service's permissions do not count", authz.Principal{Subject: "service:dns", Service: "dns", Permissions: []string{"*"}}, rule, errs.Forbidden, "PERMISSION_DENIED", nil},
		{"without a rule nobody may", root, nil, errs.Forbidden, "RULE_MISSING", nil},
		{"with an empty rule nobody may", root, &optionsv1.Rule{Mutating: true}, errs.Forbidden, "RULE_MISSING", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := authz.Authorize(c.p, c.rule)
			if c.reason == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, c.kind, errs.KindOf(err))
			require.Equal(t, c.reason, errs.ReasonOf(err))
			for _, s := range c.says {
				require.ErrorContains(t, err, s)
			}
		})
	}
}

func TestTeams(t *testing.T) {
	for _, c := range []struct {
		name string
		p    authz.Principal
		team string
		in   bool
		own  string
	}{
		{"the own team is seen", alice, "web", true, "web"},
		{"another is not", alice, "mail", false, "web"},
		{"the default one is another", alice, "", false, "web"},
		{"all teams see each", root, "mail", true, "default"},
		{"no team is the default one", reader, "default", true, "default"},
		{"an aggregate without team is the default one's", reader, "", true, "default"},
		{"the default team does not see others", reader, "web", false, "default"},
		{"a service sees all", authz.ForService("orders"), "web", true, "default"},
		{"nobody sees nothing", authz.Principal{Team: "*"}, "web", false, "default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.in, authz.InTeam(c.p, c.team))
			require.Equal(t, c.own, authz.TeamOf(c.p))
			if c.p.Team == authz.AllTeams {
				require.Empty(t, authz.Scope(c.p))
			} else {
				require.Equal(t, c.own, authz.Scope(c.p))
			}
			err := authz.RequireTeam(authz.NewContext(t.Context(), c.p), c.team, "certificate crt_1")
			switch {
			case c.in:
				require.NoError(t, err)
			case c.p.IsZero():
				require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
			default:
				require.Equal(t, errs.NotFound, errs.KindOf(err))
			}
		})
	}
}

// identity records who called.
type identity struct {
	identityv1.UnimplementedIdentityServiceServer
	mu     sync.Mutex
	caller authz.Principal
	inside func(ctx context.Context) error // when set, what the handler does
}

func (i *identity) note(ctx context.Context) error {
	p, err := authz.Require(ctx)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.caller = p
	if i.inside != nil {
		return i.inside(ctx)
	}
	return nil
}

func (i *identity) Authenticate(ctx context.Context, _ *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	return &identityv1.AuthenticateResponse{}, i.note(ctx)
}

func (i *identity) ListTokens(ctx context.Context, _ *identityv1.ListTokensRequest) (*identityv1.ListTokensResponse, error) {
	return &identityv1.ListTokensResponse{}, i.note(ctx)
}

func (i *identity) CreateToken(ctx context.Context, _ *identityv1.CreateTokenRequest) (*identityv1.CreateTokenResponse, error) {
	return &identityv1.CreateTokenResponse{}, i.note(ctx)
}

type audit struct {
	mu    sync.Mutex
	calls []string
}

func (a *audit) note(_ context.Context, c authz.Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	outcome := "done"
	switch {
	case c.Refused:
		outcome = "refused " + errs.ReasonOf(c.Err)
	case c.Err != nil:
		outcome = "failed"
	}
	_, method, _ := strings.Cut(strings.TrimPrefix(c.Method, "/"), "/")
	a.calls = append(a.calls, c.Principal.Subject+" "+method+" "+outcome)
}

// world is an installation in one process: identity, and connections to it from others.
type world struct {
	t      *testing.T
	reg    *rpc.InProcess
	clk    *clock.Fake
	signer *authz.Signer
	ident  *identity
	audit  *audit
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pub, key := keypair(t)
	w := &world{t: t, reg: rpc.NewInProcess(), clk: clock.NewFake(now), signer: authz.NewSigner(key, "prod"), ident: &identity{}, audit: &audit{}}
	guard := &authz.Server{Verifier: authz.NewVerifier("prod", pub), Clock: w.clk, Audit: w.audit.note}
	s := rpc.NewServer(rpc.ServerOptions{
		Logger: slog.New(slog.DiscardHandler), Unary: []grpc.UnaryServerInterceptor{guard.Unary}, Stream: []grpc.StreamServerInterceptor{guard.Stream},
	})
	identityv1.RegisterIdentityServiceServer(s, w.ident)
	healthpb.RegisterHealthServer(s, health.NewServer())
	require.NoError(t, authz.CheckServer(s))
	testpb.RegisterTestServiceServer(s, testpb.UnimplementedTestServiceServer{}) // has no rules
	require.ErrorContains(t, authz.CheckServer(s), "/grpc.testing.TestService/EmptyCall, ")
	l := w.reg.Listen("identity")
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return w
}

func (w *world) conn(client *authz.Client) *grpc.ClientConn {
	w.t.Helper()
	conn, err := w.reg.Conn("identity", rpc.ClientOptions{Unary: []grpc.UnaryClientInterceptor{client.Unary}, Stream: []grpc.StreamClientInterceptor{client.Stream}})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) client(service string) identityv1.IdentityServiceClient {
	return identityv1.NewIdentityServiceClient(w.conn(&authz.Client{Service: service, Signer: w.signer, Clock: w.clk}))
}

func TestCallsCarryAndAreJudgedByTheirPrincipal(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()

	_, err := w.client("gateway").ListTokens(authz.NewContext(ctx, alice), &identityv1.ListTokensRequest{})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(alice, w.ident.caller), "a person's call carries the person")

	_, err = w.client("gateway").ListTokens(authz.NewContext(ctx, reader), &identityv1.ListTokensRequest{})
	require.Equal(t, "PERMISSION_DENIED", errs.ReasonOf(err))
	require.Equal(t, "tokens.manage", errs.As(err).Meta["permission"], "over the wire")

	_, err = w.client("gateway").Authenticate(ctx, &identityv1.AuthenticateRequest{})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(authz.ForService("gateway"), w.ident.caller), "a service's own call carries the service")

	_, err = w.client("dns").Authenticate(ctx, &identityv1.AuthenticateRequest{})
	require.Equal(t, errs.Forbidden, errs.KindOf(err), "a service that the rule does not name")

	_, err = w.client("gateway").Authenticate(authz.NewContext(ctx, alice), &identityv1.AuthenticateRequest{})
	require.Equal(t, errs.Forbidden, errs.KindOf(err), "a person does not borrow the service's rights")
	_, err = w.client("gateway").Authenticate(authz.AsService(authz.NewContext(ctx, alice)), &identityv1.AuthenticateRequest{})
	require.NoError(t, err, "unless the service says that it calls for itself")

	_, err = w.client("").ListTokens(ctx, &identityv1.ListTokensRequest{})
	require.Equal(t, "TOKEN_MISSING", errs.ReasonOf(err))

	_, err = healthpb.NewHealthClient(w.conn(&authz.Client{Clock: w.clk})).Check(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err, "probes come without a principal")

	_, err = testpb.NewTestServiceClient(w.conn(&authz.Client{Service: "gateway", Signer: w.signer, Clock: w.clk})).EmptyCall(authz.NewContext(ctx, root), &testpb.Empty{})
	require.Equal(t, "RULE_MISSING", errs.ReasonOf(err), "a method without rule is closed")
	stream, err := testpb.NewTestServiceClient(w.conn(&authz.Client{Service: "gateway", Signer: w.signer, Clock: w.clk})).FullDuplexCall(authz.NewContext(ctx, root))
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, "RULE_MISSING", errs.ReasonOf(err), "a stream too")
}

func TestATokenIsForwardedAsItCame(t *testing.T) {
	w := newWorld(t)
	own := w.client("")
	// The second hop has no key to sign with, like a service of its own.
	hop := identityv1.NewIdentityServiceClient(w.conn(&authz.Client{Service: "inventory", Clock: w.clk}))
	second := authz.Principal{}
	w.ident.inside = func(ctx context.Context) error {
		w.ident.inside = func(ctx context.Context) error { second, _ = authz.FromContext(ctx); return nil }
		w.ident.mu.Unlock()
		defer w.ident.mu.Lock()
		_, err := hop.ListTokens(ctx, &identityv1.ListTokensRequest{})
		return err
	}
	_, err := own.CreateToken(authz.NewContext(t.Context(), alice), &identityv1.CreateTokenRequest{})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(alice, second))

	_, err = hop.ListTokens(authz.NewContext(t.Context(), alice), &identityv1.ListTokensRequest{})
	require.Equal(t, "PRINCIPAL_NOT_SIGNED", errs.ReasonOf(err), "a person's call is never made with the service's rights")
}

func TestASiblingsIdentityIsNotPassedOn(t *testing.T) {
	w := newWorld(t)
	_, err := w.client("gateway").Authenticate(authz.NewContext(t.Context(), authz.ForService("dns")), &identityv1.AuthenticateRequest{})
	require.NoError(t, err)
	require.Equal(t, "service:gateway", w.ident.caller.Subject)
}

func TestBadTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	_, strangerKey := keypair(t)
	call := func(tokens ...string) error {
		md := metadata.MD{authz.MetadataKey: tokens}
		conn, err := w.reg.Conn("identity", rpc.ClientOptions{})
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = identityv1.NewIdentityServiceClient(conn).ListTokens(metadata.NewOutgoingContext(t.Context(), md), &identityv1.ListTokensRequest{})
		return err
	}
	good := w.signer.Sign(root, time.Minute, now)
	require.NoError(t, call(good))
	require.Equal(t, "TOKEN_INVALID", errs.ReasonOf(call(good, good)), "several")
	require.Equal(t, "TOKEN_INVALID", errs.ReasonOf(call("x")))
	require.Equal(t, "TOKEN_INVALID", errs.ReasonOf(call(authz.NewSigner(strangerKey, "prod").Sign(root, time.Minute, now))))
	w.clk.Advance(2 * time.Minute)
	require.Equal(t, "TOKEN_EXPIRED", errs.ReasonOf(call(good)))

	// What came in by hand does not override what the interceptor decides.
	spoofed := metadata.AppendToOutgoingContext(t.Context(), authz.MetadataKey, w.signer.Sign(root, time.Minute, w.clk.Now()))
	_, err := w.client("gateway").ListTokens(authz.NewContext(spoofed, reader), &identityv1.ListTokensRequest{})
	require.Equal(t, "PERMISSION_DENIED", errs.ReasonOf(err))
}

func TestAuditHearsOfRefusalsAndOfWhatChanges(t *testing.T) {
	w := newWorld(t)
	c := w.client("gateway")
	_, _ = c.ListTokens(authz.NewContext(t.Context(), alice), &identityv1.ListTokensRequest{}) // only reads
	_, _ = c.ListTokens(authz.NewContext(t.Context(), reader), &identityv1.ListTokensRequest{})
	_, _ = c.CreateToken(authz.NewContext(t.Context(), alice), &identityv1.CreateTokenRequest{})
	w.ident.inside = func(context.Context) error { return errs.New(errs.Conflict, "", "x") }
	_, _ = c.CreateToken(authz.NewContext(t.Context(), root), &identityv1.CreateTokenRequest{})
	require.Equal(t, []string{
		"token:tok_2 ListTokens refused PERMISSION_DENIED", "token:tok_1 CreateToken done", "user:usr_1 CreateToken failed",
	}, w.audit.calls)
}

func TestThePeersCertificateNamesAService(t *testing.T) {
	info := &grpc.UnaryServerInfo{FullMethod: identityv1.IdentityService_Authenticate_FullMethodName}
	pub, _ := keypair(t)
	guard := &authz.Server{Verifier: authz.NewVerifier("prod", pub), Clock: clock.NewFake(now)}
	call := func(cert *x509.Certificate, verified bool) (subject string, err error) {
		state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if verified {
			state.VerifiedChains = [][]*x509.Certificate{{cert}}
		}
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
		_, err = guard.Unary(ctx, nil, info, func(ctx context.Context, _ any) (any, error) {
			p, _ := authz.FromContext(ctx)
			subject = p.Subject
			return nil, nil
		})
		return subject, err
	}
	for _, c := range []struct {
		name     string
		cert     x509.Certificate
		verified bool
		want     string
		reason   string
	}{
		{"a name among the DNS names", x509.Certificate{DNSNames: []string{"host.example", "gateway.certwright"}}, true, "service:gateway", ""},
		{"the common name when there are no DNS names", x509.Certificate{Subject: pkix.Name{CommonName: "gateway.certwright"}}, true, "service:gateway", ""},
		{"the common name does not count beside DNS names", x509.Certificate{Subject: pkix.Name{CommonName: "gateway.certwright"}, DNSNames: []string{"x.example"}}, true, "", "TOKEN_MISSING"},
		{"another service is known and refused", x509.Certificate{DNSNames: []string{"dns.certwright"}}, true, "", "PERMISSION_DENIED"},
		{"a certificate that was not verified is nobody", x509.Certificate{DNSNames: []string{"gateway.certwright"}}, false, "", "TOKEN_MISSING"},
		{"a longer name is nobody", x509.Certificate{DNSNames: []string{"a.gateway.certwright"}}, true, "", "TOKEN_MISSING"},
		{"a wildcard is nobody", x509.Certificate{DNSNames: []string{"*.certwright"}}, true, "", "TOKEN_MISSING"},
		{"the bare domain is nobody", x509.Certificate{DNSNames: []string{".certwright", "certwright"}}, true, "", "TOKEN_MISSING"},
	} {
		t.Run(c.name, func(t *testing.T) {
			subject, err := call(&c.cert, c.verified)
			require.Equal(t, c.want, subject)
			if c.reason != "" {
				require.Equal(t, c.reason, errs.ReasonOf(err))
				return
			}
			require.NoError(t, err)
		})
	}
}

// stream is a server stream that has nothing but a context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }

func TestAStreamsHandlerSeesThePrincipal(t *testing.T) {
	pub, key := keypair(t)
	guard := &authz.Server{Verifier: authz.NewVerifier("prod", pub), Clock: clock.NewFake(now)}
	token := authz.NewSigner(key, "prod").Sign(alice, time.Minute, now)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(authz.MetadataKey, token))
	var got authz.Principal
	info := &grpc.StreamServerInfo{FullMethod: identityv1.IdentityService_ListTokens_FullMethodName}
	require.NoError(t, guard.Stream(nil, stream{ctx: ctx}, info, func(_ any, s grpc.ServerStream) error {
		got, _ = authz.FromContext(s.Context())
		return nil
	}))
	require.Empty(t, cmp.Diff(alice, got))
}

func TestRulesAreReadFromTheContracts(t *testing.T) {
	rule := authz.RuleOf(identityv1.IdentityService_Authenticate_FullMethodName)
	require.True(t, slices.Contains(rule.GetServices(), "gateway"))
	require.Nil(t, authz.RuleOf("/certwright.identity.v1.IdentityService/None"))
	require.Nil(t, authz.RuleOf("/certwright.identity.v1.Token/x"))
	require.Nil(t, authz.RuleOf("/grpc.testing.TestService/EmptyCall"))
	require.Nil(t, authz.RuleOf(""))
}
