package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/telemetry"
	"github.com/certwright/certwright/shared/testkit"
)

var (
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	admin  = authz.Principal{Subject: "token:tok_admin", Team: "*", Permissions: []string{"*"}}
	webOps = authz.Principal{Subject: "token:tok_web", Team: "web", Permissions: []string{"tokens.manage", "certificates.*", "audit.read"}}
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	*server
	clk   *clock.Fake
	log   *bytes.Buffer
	store docstore.Store
}

func newWorld(t *testing.T, store docstore.Store) *world {
	t.Helper()
	w := &world{clk: clock.NewFake(start), log: &bytes.Buffer{}, store: store}
	logger := slog.New(slog.NewTextHandler(w.log, nil))
	p := &service.Platform{
		Clock: w.clk, Logger: logger, Store: store,
		Outbox: outbox.New(outbox.Config{Store: store, Bus: testkit.Silent{}, Source: "identity", Clock: w.clk, Logger: logger}),
	}
	var err error
	w.server, err = open(t.Context(), p)
	require.NoError(t, err)
	return w
}

func as(t *testing.T, p authz.Principal) context.Context { return authz.NewContext(t.Context(), p) }

func (w *world) create(t *testing.T, p authz.Principal, tok *identityv1.Token) *identityv1.CreateTokenResponse {
	t.Helper()
	resp, err := w.CreateToken(as(t, p), &identityv1.CreateTokenRequest{Token: tok})
	require.NoError(t, err)
	return resp
}

func (w *world) authenticate(t *testing.T, secret string) (*identityv1.Token, error) {
	t.Helper()
	resp, err := w.Authenticate(as(t, authz.ForService("gateway")), &identityv1.AuthenticateRequest{Token: secret})
	return resp.GetToken(), err
}

func TestATokenWorksUntilItExpiresOrIsRevoked(t *testing.T) {
	w := newWorld(t, testkit.Store(t))
	made := w.create(t, admin, &identityv1.Token{DisplayName: "ci", Team: "web", Permissions: []string{"certificates.read"}, ExpireTime: timestamppb.New(start.Add(time.Hour))})
	require.Len(t, made.GetSecret(), secretLength)
	require.True(t, strings.HasSuffix(made.GetSecret(), made.GetToken().GetLast4()))

	got, err := w.authenticate(t, made.GetSecret())
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(made.GetToken(), got, protocmp.Transform()))

	stored, err := w.store.Get(t.Context(), "tokens", made.GetToken().GetId())
	require.NoError(t, err)
	require.NotContains(t, string(stored), made.GetSecret(), "the secret is not stored")

	for _, row := range []struct{ name, secret, says string }{
		{"something else", "hunter2", "not an API token"},
		{"one cut short", made.GetSecret()[:secretLength-1], "not an API token"},
		{"one of another installation", newSecret(), "not known here"},
		{"nothing", "", "not an API token"},
	} {
		t.Run(row.name+" is refused", func(t *testing.T) {
			_, err := w.authenticate(t, row.secret)
			require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
			require.Equal(t, "TOKEN_INVALID", errs.ReasonOf(err))
			require.ErrorContains(t, err, row.says)
		})
	}

	w.clk.Advance(time.Hour)
	_, err = w.authenticate(t, made.GetSecret())
	require.ErrorContains(t, err, "expired at 2026-01-02T04:04:05Z")

	other := w.create(t, admin, &identityv1.Token{DisplayName: "lost laptop", Permissions: []string{"*"}})
	spare := w.create(t, admin, &identityv1.Token{DisplayName: "spare", Permissions: []string{"*"}})
	revoked, err := w.RevokeToken(as(t, admin), &identityv1.RevokeTokenRequest{Id: other.GetToken().GetId()})
	require.NoError(t, err)
	require.True(t, revoked.GetRevoked())
	_, err = w.authenticate(t, other.GetSecret())
	require.ErrorContains(t, err, "was revoked")
	_, err = w.RevokeToken(as(t, admin), &identityv1.RevokeTokenRequest{Id: other.GetToken().GetId()})
	require.NoError(t, err, "twice is once")

	_, err = w.RevokeToken(as(t, admin), &identityv1.RevokeTokenRequest{Id: spare.GetToken().GetId()})
	require.Equal(t, "LAST_ADMIN_TOKEN", errs.ReasonOf(err))
	_, err = w.authenticate(t, spare.GetSecret())
	require.NoError(t, err)
}

func TestNobodyGivesAwayWhatTheyDoNotHave(t *testing.T) {
	w := newWorld(t, testkit.Store(t))
	for _, row := range []struct {
		name   string
		by     authz.Principal
		token  *identityv1.Token
		reason string
		field  string
	}{
		{"a family that one has", webOps, &identityv1.Token{DisplayName: "a", Permissions: []string{"certificates.*"}}, "", ""},
		{"one of a family that one has", webOps, &identityv1.Token{DisplayName: "a", Permissions: []string{"certificates.read"}}, "", ""},
		{"everything, by who has everything", admin, &identityv1.Token{DisplayName: "a", Team: "*", Permissions: []string{"*"}}, "", ""},
		{"everything, by who has some", webOps, &identityv1.Token{DisplayName: "a", Permissions: []string{"certificates.read", "*"}}, "PERMISSION_NOT_HELD", "token.permissions[1]"},
		{"a family of which one has a member", webOps, &identityv1.Token{DisplayName: "a", Permissions: []string{"tokens.*"}}, "PERMISSION_NOT_HELD", "token.permissions[0]"},
		{"another family", webOps, &identityv1.Token{DisplayName: "a", Permissions: []string{"orders.read"}}, "PERMISSION_NOT_HELD", "token.permissions[0]"},
		{"all teams, by who is in one", webOps, &identityv1.Token{DisplayName: "a", Team: "*", Permissions: []string{"certificates.read"}}, "PERMISSION_DENIED", ""},
		{"another team", webOps, &identityv1.Token{DisplayName: "a", Team: "mail", Permissions: []string{"certificates.read"}}, "PERMISSION_DENIED", ""},
		{"a permission that does not exist", admin, &identityv1.Token{DisplayName: "a", Permissions: []string{"certificate.read"}}, "INVALID_ARGUMENT", "token.permissions[0]"},
		{"a family that does not exist", admin, &identityv1.Token{DisplayName: "a", Permissions: []string{"certificate.*"}}, "INVALID_ARGUMENT", "token.permissions[0]"},
		{"no permission", admin, &identityv1.Token{DisplayName: "a"}, "INVALID_ARGUMENT", "token.permissions"},
		{"no name", admin, &identityv1.Token{Permissions: []string{"*"}}, "INVALID_ARGUMENT", "token.displayName"},
		{"an end in the past", admin, &identityv1.Token{DisplayName: "a", Permissions: []string{"*"}, ExpireTime: timestamppb.New(start)}, "INVALID_ARGUMENT", "token.expireTime"},
		{"a team that is no name", admin, &identityv1.Token{DisplayName: "a", Team: "a b", Permissions: []string{"*"}}, "INVALID_ARGUMENT", "token.team"},
	} {
		t.Run(row.name, func(t *testing.T) {
			resp, err := w.CreateToken(as(t, row.by), &identityv1.CreateTokenRequest{Token: row.token})
			if row.reason == "" {
				require.NoError(t, err)
				require.NotEmpty(t, resp.GetSecret())
				return
			}
			require.Equal(t, row.reason, errs.ReasonOf(err))
			if row.field != "" {
				require.Equal(t, row.field, errs.As(err).Fields[0].Name)
			}
		})
	}
}

func TestARepeatedRequestMakesOneTokenAndDoesNotShowItsSecretAgain(t *testing.T) {
	w := newWorld(t, testkit.Store(t))
	req := &identityv1.CreateTokenRequest{RequestId: "r1", Token: &identityv1.Token{DisplayName: "ci", Permissions: []string{"*"}}}
	first, err := w.CreateToken(as(t, admin), req)
	require.NoError(t, err)
	again, err := w.CreateToken(as(t, admin), proto.CloneOf(req))
	require.NoError(t, err)
	require.Empty(t, again.GetSecret())
	require.Equal(t, first.GetToken().GetId(), again.GetToken().GetId())

	req.Token.DisplayName = "other"
	_, err = w.CreateToken(as(t, admin), req)
	require.Equal(t, "REQUEST_ID_REUSED", errs.ReasonOf(err))
}

func TestATeamSeesItsOwnTokens(t *testing.T) {
	w := newWorld(t, testkit.Store(t))
	mine := w.create(t, webOps, &identityv1.Token{DisplayName: "mine", Permissions: []string{"certificates.read"}})
	theirs := w.create(t, admin, &identityv1.Token{DisplayName: "theirs", Team: "mail", Permissions: []string{"certificates.read"}})
	everybody := w.create(t, admin, &identityv1.Token{DisplayName: "everybody's", Permissions: []string{"certificates.read"}})
	require.Equal(t, "*", everybody.GetToken().GetTeam())

	names := func(p authz.Principal) (out []string) {
		resp, err := w.ListTokens(as(t, p), &identityv1.ListTokensRequest{})
		require.NoError(t, err)
		for _, tok := range resp.GetTokens() {
			out = append(out, tok.GetDisplayName())
		}
		return out
	}
	require.Equal(t, []string{"mine"}, names(webOps))
	require.Equal(t, []string{"mine", "theirs", "everybody's"}, names(admin))
	for _, other := range []*identityv1.CreateTokenResponse{theirs, everybody} {
		_, err := w.RevokeToken(as(t, webOps), &identityv1.RevokeTokenRequest{Id: other.GetToken().GetId()})
		require.Equal(t, errs.NotFound, errs.KindOf(err))
		require.NotContains(t, err.Error(), "theirs")
	}
	_, err := w.RevokeToken(as(t, webOps), &identityv1.RevokeTokenRequest{Id: mine.GetToken().GetId()})
	require.NoError(t, err)
	_, err = w.RevokeToken(as(t, admin), &identityv1.RevokeTokenRequest{Id: "tok_none"})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
}

func TestTheFirstStartMakesAnAdministratorsTokenOnce(t *testing.T) {
	store := testkit.Store(t)
	path := filepath.Join(t.TempDir(), "sub", "admin.token")
	cfg := Config{BootstrapTokenFile: path}
	w := newWorld(t, store)
	require.NoError(t, w.bootstrap(t.Context(), cfg))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	held, err := readToken(path)
	require.NoError(t, err)
	tok, err := w.authenticate(t, held)
	require.NoError(t, err)
	require.Equal(t, "*", tok.GetTeam())
	require.Equal(t, []string{"*"}, tok.GetPermissions())
	require.Contains(t, w.log.String(), "admin token written")
	require.Contains(t, w.log.String(), path)
	require.NotContains(t, w.log.String(), held, "the token is not logged")

	w = newWorld(t, store)
	require.NoError(t, w.bootstrap(t.Context(), cfg))
	require.Empty(t, w.log.String(), "the second start says nothing")

	require.NoError(t, os.Remove(path))
	require.NoError(t, w.bootstrap(t.Context(), cfg))
	require.NoFileExists(t, path, "a lost file is not made again by itself")

	cfg.RecoverAdmin = true
	require.NoError(t, w.bootstrap(t.Context(), cfg))
	again, err := readToken(path)
	require.NoError(t, err)
	require.NotEqual(t, held, again)
	_, err = w.authenticate(t, again)
	require.NoError(t, err)
	require.NoError(t, w.bootstrap(t.Context(), cfg), "recover_admin may stay set")
}

func TestWhatACrashLeftIsAdopted(t *testing.T) {
	t.Run("a file without its token in the store", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.token")
		held := newSecret()
		require.NoError(t, writeToken(path, held))
		w := newWorld(t, testkit.Store(t))
		require.NoError(t, w.bootstrap(t.Context(), Config{BootstrapTokenFile: path}))
		_, err := w.authenticate(t, held)
		require.NoError(t, err)
	})
	t.Run("an empty file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.token")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		w := newWorld(t, testkit.Store(t))
		require.NoError(t, w.bootstrap(t.Context(), Config{BootstrapTokenFile: path}))
		held, err := readToken(path)
		require.NoError(t, err)
		_, err = w.authenticate(t, held)
		require.NoError(t, err)
	})
	t.Run("a file with something else stops the first start", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.token")
		require.NoError(t, os.WriteFile(path, []byte("hello"), 0o600))
		err := newWorld(t, testkit.Store(t)).bootstrap(t.Context(), Config{BootstrapTokenFile: path})
		require.Equal(t, "BOOTSTRAP_TOKEN_FILE", errs.ReasonOf(err))
		require.ErrorContains(t, err, path)
	})
	t.Run("a file of another installation is said, and adopted when asked", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.token")
		w := newWorld(t, testkit.Store(t))
		w.create(t, admin, &identityv1.Token{DisplayName: "x", Permissions: []string{"*"}})
		held := newSecret()
		require.NoError(t, writeToken(path, held))
		require.NoError(t, w.bootstrap(t.Context(), Config{BootstrapTokenFile: path}))
		require.Contains(t, w.log.String(), "not known here")
		require.Contains(t, w.log.String(), "recover_admin")
		_, err := w.authenticate(t, held)
		require.Equal(t, "TOKEN_INVALID", errs.ReasonOf(err))
		require.NoError(t, w.bootstrap(t.Context(), Config{BootstrapTokenFile: path, RecoverAdmin: true}))
		_, err = w.authenticate(t, held)
		require.NoError(t, err)
	})
	t.Run("of two replicas starting at once one keeps its file", func(t *testing.T) {
		store := testkit.Store(t)
		path := filepath.Join(t.TempDir(), "admin.token")
		w := newWorld(t, store)
		require.NoError(t, w.adopt(t.Context(), "elsewhere", newSecret(), firstToken))
		require.NoError(t, w.writeAdmin(t.Context(), path, true))
		require.NoFileExists(t, path)
	})
}

func entry(id, actor, method, subject, team string, at time.Time) *identityv1.AuditEntry {
	return &identityv1.AuditEntry{Id: id, Time: timestamppb.New(at), Actor: actor, Method: method, Subject: subject, Team: team}
}

func TestTheAuditTrailKeepsEachEntryOnce(t *testing.T) {
	w := newWorld(t, testkit.Store(t))
	entries := []*identityv1.AuditEntry{
		entry("a1", "token:a", "/x/Create", "crt_1", "web", start),
		entry("a2", "token:b", "/x/Revoke", "crt_1", "web", start.Add(time.Second)),
		entry("a3", "token:a", "/x/Create", "crt_2", "", start.Add(2*time.Second)),
	}
	for range 2 {
		_, err := w.Append(as(t, authz.ForService("inventory")), &identityv1.AppendRequest{Entries: entries})
		require.NoError(t, err)
	}
	for _, row := range []struct {
		name          string
		by            authz.Principal
		filter, order string
		want          []string
	}{
		{"newest first", admin, "", "", []string{"a3", "a2", "a1"}},
		{"oldest first", admin, "", "time", []string{"a1", "a2", "a3"}},
		{"by actor", admin, "actor=token:a", "", []string{"a3", "a1"}},
		{"by subject", admin, "subject=crt_1", "time", []string{"a1", "a2"}},
		{"by method", admin, "method=/x/Revoke", "", []string{"a2"}},
		{"by several", admin, "subject=crt_1 AND actor=token:b", "", []string{"a2"}},
		{"a team sees its own", webOps, "", "", []string{"a2", "a1"}},
		{"a team sees its own, filtered", webOps, "actor=token:a", "", []string{"a1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			for page := ""; ; {
				resp, err := w.ListAudit(as(t, row.by), &identityv1.ListAuditRequest{Filter: row.filter, OrderBy: row.order, PageSize: 1, PageToken: page})
				require.NoError(t, err)
				for _, e := range resp.GetEntries() {
					got = append(got, e.GetId())
				}
				if page = resp.GetNextPageToken(); page == "" {
					break
				}
			}
			require.Equal(t, row.want, got)
		})
	}
	for _, row := range []struct{ name, filter, order, reason string }{
		{"a field that does not exist", "who=me", "", "BAD_FILTER"},
		{"an order that does not exist", "", "actor", "BAD_ORDER"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := w.ListAudit(as(t, admin), &identityv1.ListAuditRequest{Filter: row.filter, OrderBy: row.order})
			require.Equal(t, row.reason, errs.ReasonOf(err))
		})
	}
	_, err := w.Append(as(t, authz.ForService("inventory")), &identityv1.AppendRequest{Entries: []*identityv1.AuditEntry{{Id: "x"}}})
	require.Equal(t, "entries[0]", errs.As(err).Fields[0].Name)
}

// The service as it runs: calls are authorised by their contract, and every change is in the audit trail, identity's own too.
func TestTheRunningServiceAuditsItself(t *testing.T) {
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test", Output: io.Discard})
	require.NoError(t, err)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	network, dir := service.NewInProcess(), t.TempDir()
	signer := authz.NewSigner(private, "test")
	pr := &service.Process{
		Clock: clock.System(), Telemetry: tel, NATS: testkit.NATS(t).Conn(), SyncInterval: time.Second, Network: network,
		Verifier: authz.NewVerifier("test", public), Signer: signer, DataDir: dir,
		OpenStore: func(context.Context, string) (docstore.Store, error) {
			return testkit.StoreAt(t, filepath.Join(dir, "identity.db")), nil
		},
	}
	p, closeAll, err := pr.Platform(t.Context(), "identity")
	require.NoError(t, err)
	testkit.Run(t, func(ctx context.Context) error {
		defer closeAll()
		return Run(ctx, p, Defaults())
	})

	id := &authz.Client{Service: "gateway", Signer: signer, Clock: clock.System()}
	conn, err := network.Conn("gateway", "identity", rpc.ClientOptions{Unary: []grpc.UnaryClientInterceptor{id.Unary}})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	client := identityv1.NewIdentityServiceClient(conn)

	within, stop := context.WithTimeout(t.Context(), testkit.Deadline)
	defer stop()
	var held string
	testkit.Eventually(t, func() bool { held, err = readToken(filepath.Join(dir, "identity", "admin.token")); return err == nil }, "no admin token")
	resp, err := client.Authenticate(within, &identityv1.AuthenticateRequest{Token: held})
	require.NoError(t, err)
	person := authz.NewContext(within, authz.Principal{Subject: "token:" + resp.GetToken().GetId(), Team: resp.GetToken().GetTeam(), Permissions: resp.GetToken().GetPermissions()})

	_, err = client.Authenticate(authz.NewContext(within, webOps), &identityv1.AuthenticateRequest{Token: held})
	require.Equal(t, errs.Forbidden, errs.KindOf(err), "people do not authenticate tokens")
	made, err := client.CreateToken(person, &identityv1.CreateTokenRequest{Token: &identityv1.Token{DisplayName: "ci", Permissions: []string{"certificates.read"}}})
	require.NoError(t, err)
	_, err = client.RevokeToken(person, &identityv1.RevokeTokenRequest{Id: made.GetToken().GetId()})
	require.NoError(t, err)
	testkit.Eventually(t, func() bool {
		trail, err := client.ListAudit(person, &identityv1.ListAuditRequest{Filter: "subject=" + made.GetToken().GetId(), OrderBy: "time"})
		return err == nil && len(trail.GetEntries()) == 2 &&
			trail.GetEntries()[0].GetMethod() == identityv1.IdentityService_CreateToken_FullMethodName &&
			trail.GetEntries()[1].GetMethod() == identityv1.IdentityService_RevokeToken_FullMethodName &&
			trail.GetEntries()[1].GetActor() == "token:"+firstToken
	}, "the trail has not both calls")
}
