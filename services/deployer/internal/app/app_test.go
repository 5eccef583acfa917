package app_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
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
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/deployer/internal/adapters/filehost"
	"github.com/certwright/certwright/services/deployer/internal/adapters/tlsprobe"
	"github.com/certwright/certwright/services/deployer/internal/app"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/services/deployer/internal/transport/consumer"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

// owners answers for inventory and keys.
type owners struct {
	versions    map[string]*inventoryv1.VersionStatus
	certificate *inventoryv1.Certificate
	changes     []*inventoryv1.CertificateChange
	keys        map[string][]byte // PKCS#8
	releases    int
	keysErr     error
}

func (o *owners) GetCertificate(context.Context, *inventoryv1.GetCertificateRequest, ...grpc.CallOption) (*inventoryv1.Certificate, error) {
	if o.certificate == nil {
		return nil, errs.New(errs.NotFound, "", "no such certificate")
	}
	return o.certificate, nil
}

func (o *owners) GetVersionStatus(_ context.Context, in *inventoryv1.GetVersionStatusRequest, _ ...grpc.CallOption) (*inventoryv1.VersionStatus, error) {
	if s := o.versions[in.GetVersionId()]; s != nil {
		return s, nil
	}
	return nil, errs.New(errs.NotFound, "", "no such version")
}

func (o *owners) ListChanges(context.Context, *inventoryv1.ListChangesRequest, ...grpc.CallOption) (*inventoryv1.ListChangesResponse, error) {
	return &inventoryv1.ListChangesResponse{Changes: o.changes, NextCursor: "next"}, nil
}

func (o *owners) Release(_ context.Context, in *keysv1.ReleaseRequest, _ ...grpc.CallOption) (*keysv1.ReleaseResponse, error) {
	if o.keysErr != nil {
		return nil, o.keysErr
	}
	o.releases++
	sealed, err := seal.SealTo(in.GetReceiverPublicKey(), o.keys[in.GetKeyId()], []byte("release:"+in.GetDeploymentId()))
	return &keysv1.ReleaseResponse{SealedPkcs8: sealed}, err
}

// hosts has one host, which a test may put something in front of.
type hosts struct{ host app.Host }

func (h *hosts) Host(name string) (app.Host, error) {
	if name != domain.DefaultHost {
		return nil, errs.New(errs.Invalid, "DEPLOY_HOST_UNKNOWN", "there is no host %q; configured are local", name)
	}
	return h.host, nil
}

type fixture struct {
	*app.App
	t      *testing.T
	dir    string // of the host
	clk    *clock.Fake
	owners *owners
	hosts  *hosts
	pub    testkit.Recorder
	out    *outbox.Outbox
	log    bytes.Buffer
	handle func(ctx context.Context, e bus.Event) error
	who    app.Caller
	n      int64
	target docstore.Doc[domain.Target]
	site   string
}

// setup makes a site that serves dir/active, a host whose commands copy the installed files there, and a target for both.
func setup(t *testing.T, change ...func(t *domain.Target)) *fixture {
	t.Helper()
	clk := clock.NewFake(time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC))
	f := &fixture{t: t, dir: t.TempDir(), clk: clk, who: app.Caller{Subject: "user:u", Team: "web"}}
	f.owners = &owners{versions: map[string]*inventoryv1.VersionStatus{}, keys: map[string][]byte{}, certificate: &inventoryv1.Certificate{Id: "crt_1", Team: "web"}}
	f.out = outbox.New(outbox.Config{Store: memory.New(clk), Bus: &f.pub, Source: "deployer", Clock: clk, Logger: slog.New(slog.DiscardHandler)})
	testkit.Run(t, f.out.Run)

	require.NoError(t, os.Mkdir(f.dir+"/active", 0o700))
	copyAll := "cp -p " + f.dir + "/full.pem " + f.dir + "/active/ && cp -p " + f.dir + "/key.pem " + f.dir + "/active/"
	f.hosts = &hosts{filehost.New("local", filehost.Config{AllowedRoots: []string{f.dir}, CommandTimeout: time.Minute, Commands: map[string][]string{
		"reload": {"/bin/sh", "-c", copyAll},
		"ignore": {"/bin/sh", "-c", "echo did not read anything"},
		"broken": {"/bin/sh", "-c", "echo bad configuration; exit 7"},
		"hang":   {"/bin/sh", "-c", "sleep 1000"},
		"picky":  {"/bin/sh", "-c", "test -e " + f.dir + "/refuse && exit 9; " + copyAll},
	}})}
	f.site = serve(t, f.dir+"/active")

	targetSpec, bindingSpec, deploymentSpec := app.Specs()
	receiver, err := seal.NewReceiver()
	require.NoError(t, err)
	f.App = &app.App{
		Inventory: f.owners, Keys: f.owners, Receiver: receiver, Hosts: f.hosts, Prober: tlsprobe.Probe{Timeout: 5 * time.Second}, Clock: clk,
		Logger: slog.New(slog.NewTextHandler(&f.log, nil)), VerifyFor: 30 * time.Second, VerifyPoll: time.Second, DetachedFor: 30 * 24 * time.Hour,
	}
	f.Targets = testkit.Open[domain.Target](t, f.out, targetSpec)
	f.Bindings = testkit.Open[domain.Binding](t, f.out, bindingSpec)
	f.Deployments = testkit.Open[domain.Deployment](t, f.out, deploymentSpec)
	f.Requests, err = once.Open(t.Context(), f.out)
	require.NoError(t, err)
	f.handle = consumer.New(f.App).Handle

	want := domain.Target{ProbeAddress: f.site, File: domain.FileTarget{FullchainPath: f.dir + "/full.pem", KeyPath: f.dir + "/key.pem", Reload: "reload"}}
	for _, c := range change {
		c(&want)
	}
	f.target, err = f.CreateTarget(t.Context(), f.who, "", nil, want)
	require.NoError(t, err)
	return f
}

func reload(name string) func(*domain.Target) { return func(t *domain.Target) { t.File.Reload = name } }

// serve is a TLS site that reads full.pem and key.pem of a directory at each connection: what its operator copied there is what it has "loaded".
func serve(t *testing.T, dir string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(dir+"/full.pem", dir+"/key.pem")
		return &pair, err
	}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.(*tls.Conn).HandshakeContext(t.Context())
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

type version struct {
	facts *typesv1.VersionFacts
	der   []byte
	key   string // PEM
}

// issue makes version n of the certificate, current at inventory, its key at keys.
func (f *fixture) issue(n int64) version {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f.t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: "a.example"}, DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(f.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(f.t, err)
	sum := sha256.Sum256(der)
	facts := &typesv1.VersionFacts{
		VersionId: fmt.Sprintf("ver_%d", n), Number: n, KeyId: fmt.Sprintf("key_%d", n), Names: []string{"a.example"},
		FingerprintSha256: hex.EncodeToString(sum[:]), NotAfter: timestamppb.New(f.clk.Now().Add(90 * 24 * time.Hour)),
	}
	for _, s := range f.owners.versions {
		s.Version.State = "superseded"
	}
	f.owners.versions[facts.GetVersionId()] = &inventoryv1.VersionStatus{Version: &inventoryv1.Version{State: "current", Facts: facts}, ChainDer: [][]byte{der}}
	f.owners.keys[facts.GetKeyId()] = pkcs8
	return version{facts, der, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))}
}

// tell delivers a fact twice: the bus does that.
func (f *fixture) tell(m proto.Message) {
	f.t.Helper()
	f.n++
	e := testkit.Event(f.t, m, bus.Event{ID: fmt.Sprintf("x-%d", f.n), Source: "test", Subject: "x", Team: "web", Revision: f.n})
	for range 2 {
		require.NoError(f.t, f.handle(f.t.Context(), e))
	}
}

func (f *fixture) added(v version) {
	f.t.Helper()
	f.tell(&certificateeventsv1.VersionAdded{CertificateId: "crt_1", Version: v.facts, State: "current"})
}

func (f *fixture) bind() docstore.Doc[domain.Binding] {
	f.t.Helper()
	b, err := f.EnsureBinding(f.t.Context(), app.Bind{CertificateID: "crt_1", TargetID: f.target.ID, Team: "web", Owner: "me@a.example"})
	require.NoError(f.t, err)
	return b
}

// stepDue does one step of every due document; lose says which of deployments are forgotten, as a crash after the step would.
func stepDue[T any](f *fixture, c *outbox.Collection[T], step func(context.Context, docstore.Doc[T]) (worker.Result[T], error), lose func(d docstore.Doc[T]) bool) bool {
	f.t.Helper()
	page, err := c.Find(f.t.Context(), docstore.Query{Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lte, Value: f.clk.Now()}}})
	require.NoError(f.t, err)
	for _, d := range page.Docs {
		r, err := step(f.t.Context(), d)
		require.NoError(f.t, err)
		if lose != nil && lose(d) {
			continue
		}
		_, err = c.Change(f.t.Context(), d.ID, r.Apply)
		require.NoError(f.t, err)
	}
	return len(page.Docs) > 0
}

// drive steps until nothing is due.
func (f *fixture) drive(lose ...func(d docstore.Doc[domain.Deployment]) bool) {
	f.t.Helper()
	forget := func(docstore.Doc[domain.Deployment]) bool { return false }
	if len(lose) > 0 {
		forget = lose[0]
	}
	for range 200 {
		bindings := stepDue(f, f.Bindings, f.StepBinding, nil)
		if deployments := stepDue(f, f.Deployments, f.Step, forget); !bindings && !deployments {
			return
		}
	}
	f.t.Fatal("it does not come to rest")
}

// patience drives over the time in which a certificate is looked for.
func (f *fixture) patience() {
	f.t.Helper()
	for range 64 {
		f.drive()
		f.clk.Advance(time.Second)
	}
}

func (f *fixture) deployment(generation int64) domain.Deployment {
	f.t.Helper()
	d, err := f.Deployments.Get(f.t.Context(), domain.DeploymentID(domain.BindingID("crt_1", f.target.ID), generation))
	require.NoError(f.t, err)
	return d.Body
}

func (f *fixture) binding() domain.Binding {
	f.t.Helper()
	d, err := f.Bindings.Get(f.t.Context(), domain.BindingID("crt_1", f.target.ID))
	require.NoError(f.t, err)
	return d.Body
}

func (f *fixture) told() []string {
	f.t.Helper()
	require.NoError(f.t, f.out.Flush(f.t.Context()))
	return testkit.Types(f.t, f.pub.Entries())
}

func (f *fixture) read(name string) string {
	f.t.Helper()
	raw, err := os.ReadFile(filepath.Join(f.dir, name))
	require.NoError(f.t, err)
	return string(raw)
}

func (f *fixture) served() string {
	fp, err := tlsprobe.Probe{Timeout: 5 * time.Second}.Served(f.t.Context(), f.site, "a.example")
	if err != nil {
		return ""
	}
	return fp
}

func TestVersionIsDeployedAndSeenToBeServed(t *testing.T) {
	f := setup(t)
	f.bind()
	f.drive()
	require.EqualValues(t, 0, f.binding().Generation, "there is no version yet")
	v := f.issue(1)
	f.added(v)
	f.drive()
	d := f.deployment(1)
	require.Equal(t, domain.Succeeded, d.State, d.Problem.Detail)
	require.Equal(t, v.facts.GetFingerprintSha256(), d.Served)
	require.Equal(t, v.facts.GetFingerprintSha256(), f.served())
	require.Equal(t, v.key, f.read("key.pem"))
	require.Equal(t, string(domain.PEM([][]byte{v.der})), f.read("full.pem"))
	require.Equal(t, "ver_1", f.binding().ServedVersionID)
	require.Equal(t, []string{"deployment.started", "deployment.succeeded"}, f.told())
	var ok deploymenteventsv1.Succeeded
	require.NoError(t, testkit.Events(t, f.pub.Entries())[1].Decode(&ok))
	require.Empty(t, cmp.Diff("me@a.example", ok.GetSubject().GetOwner()))
	require.EqualValues(t, 1, ok.GetSubject().GetGeneration())
}

func TestBindingMadeAfterIssuanceDeploysTheCurrentVersionAtOnce(t *testing.T) {
	f := setup(t)
	v := f.issue(3)
	f.owners.certificate.CurrentVersion = f.owners.versions["ver_3"].GetVersion()
	f.bind()
	f.bind()
	f.drive()
	require.Equal(t, domain.Succeeded, f.deployment(1).State)
	require.Equal(t, v.facts.GetFingerprintSha256(), f.served())
}

func TestFactsOutOfOrderNeverDeployAnOlderVersion(t *testing.T) {
	f := setup(t)
	f.bind()
	one := f.issue(1)
	two := f.issue(2)
	f.added(two)
	f.added(one)
	f.drive()
	require.EqualValues(t, 1, f.binding().Generation)
	require.Equal(t, two.facts.GetFingerprintSha256(), f.served())
}

func TestNewerVersionSupersedesAnOpenDeployment(t *testing.T) {
	f := setup(t, reload("broken"))
	f.bind()
	f.added(f.issue(1))
	f.drive()
	require.Equal(t, domain.Failed, f.deployment(1).State)
	f.added(f.issue(2))
	f.drive()
	require.Equal(t, domain.Superseded, f.deployment(1).State)
	require.Equal(t, domain.Failed, f.deployment(2).State)
}

func TestLostFactIsMadeUpForFromInventory(t *testing.T) {
	f := setup(t)
	f.bind()
	f.drive()
	v := f.issue(1)
	f.owners.changes = []*inventoryv1.CertificateChange{{Certificate: &inventoryv1.Certificate{Id: "crt_1", Team: "web", CurrentVersion: f.owners.versions["ver_1"].GetVersion()}}}
	for range 2 {
		page, err := f.ReadCertificates(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, "next", page.Next)
	}
	f.drive()
	require.EqualValues(t, 1, f.binding().Generation)
	require.Equal(t, v.facts.GetFingerprintSha256(), f.served())
	f.owners.changes = []*inventoryv1.CertificateChange{{Certificate: &inventoryv1.Certificate{Id: "crt_1", Team: "web"}, Deleted: true}}
	_, err := f.ReadCertificates(t.Context(), "")
	require.NoError(t, err)
	require.False(t, f.binding().Attached)
}

func TestWhatIsServedAlreadyIsLeftAlone(t *testing.T) {
	f := setup(t)
	f.bind()
	f.added(f.issue(1))
	f.drive()
	require.NoError(t, f.DeleteBinding(t.Context(), f.who, domain.BindingID("crt_1", f.target.ID)))
	f.owners.certificate.CurrentVersion = f.owners.versions["ver_1"].GetVersion()
	f.bind()
	f.drive()
	d := f.deployment(2)
	require.Equal(t, domain.Succeeded, d.State)
	require.True(t, d.Unchanged)
	require.Equal(t, 1, f.owners.releases, "no key was asked for again")
}

func TestServerThatDoesNotReadGetsItsOldCertificateBack(t *testing.T) {
	f := setup(t, reload("picky"))
	f.bind()
	one := f.issue(1)
	f.added(one)
	f.drive()
	require.Equal(t, one.facts.GetFingerprintSha256(), f.served())

	require.NoError(t, os.WriteFile(f.dir+"/refuse", nil, 0o600))
	two := f.issue(2)
	f.added(two)
	f.drive()
	d := f.deployment(2)
	require.Equal(t, domain.Stuck, d.State, "the command fails on the way back too")
	require.Equal(t, one.key, f.read("key.pem"), "but the files are back")
	require.Contains(t, d.Problem.Detail, `the command "picky" on the host "local" ended with exit code 9`)
	require.Equal(t, f.clk.Now().Add(time.Minute), d.RetryAt)

	require.NoError(t, os.Remove(f.dir+"/refuse"))
	f.clk.Advance(time.Minute)
	f.drive()
	require.Equal(t, domain.Succeeded, f.deployment(2).State, "it is tried until it works")
	require.EqualValues(t, 2, f.deployment(2).Attempts)
	require.Equal(t, two.facts.GetFingerprintSha256(), f.served())
	require.Equal(t, []string{"deployment.started", "deployment.succeeded", "deployment.started", "deployment.stuck", "deployment.succeeded"}, f.told())
}

func TestProbeThatSeesAnotherCertificateRollsBack(t *testing.T) {
	f := setup(t, reload("ignore"))
	old := f.issue(1)
	require.NoError(t, os.WriteFile(f.dir+"/full.pem", domain.PEM([][]byte{old.der}), 0o644))
	require.NoError(t, os.WriteFile(f.dir+"/key.pem", []byte(old.key), 0o600))
	for _, name := range []string{"full.pem", "key.pem"} {
		require.NoError(t, os.WriteFile(f.dir+"/active/"+name, []byte(f.read(name)), 0o600))
	}
	f.bind()
	v := f.issue(2)
	f.added(v)
	f.patience()
	d := f.deployment(1)
	require.Equal(t, domain.RolledBack, d.State)
	require.Equal(t, "DEPLOY_WRONG_CERTIFICATE", d.Problem.Reason)
	require.Contains(t, d.Problem.Detail, f.site+` (server name "a.example") serves the certificate with the SHA-256 fingerprint `+old.facts.GetFingerprintSha256()+", not "+v.facts.GetFingerprintSha256())
	require.Equal(t, old.key, f.read("key.pem"))
	require.Equal(t, old.facts.GetFingerprintSha256(), d.Served)
	require.Equal(t, []string{"deployment.started", "deployment.rolled_back"}, f.told())
	require.Empty(t, f.binding().ServedVersionID)
}

func TestReloadThatHangsIsKilledAndRolledBack(t *testing.T) {
	f := setup(t, reload("hang"))
	f.hosts.host = filehost.New("local", filehost.Config{
		AllowedRoots: []string{f.dir}, CommandTimeout: 300 * time.Millisecond, Commands: map[string][]string{"hang": {"/bin/sh", "-c", "sleep 1000"}},
	})
	f.bind()
	f.added(f.issue(1))
	f.drive()
	d := f.deployment(1)
	require.Equal(t, domain.Failed, d.State)
	require.Equal(t, "DEPLOY_RELOAD_TIMEOUT", d.Problem.Reason)
	require.Contains(t, d.Problem.Detail, "was killed after 300ms")
	require.Contains(t, d.Problem.Detail, "there was nothing before to go back to, so the new files stay")
	require.True(t, d.Problem.Retrying)
	require.Equal(t, []string{"deployment.started", "deployment.failed"}, f.told())
}

func TestServerThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	f := setup(t, func(t *domain.Target) { t.ProbeAddress = address })
	f.bind()
	f.added(f.issue(1))
	f.patience()
	d := f.deployment(1)
	require.Equal(t, domain.Failed, d.State)
	require.Equal(t, "DEPLOY_PROBE_UNREACHABLE", d.Problem.Reason)
	require.Contains(t, d.Problem.Detail, "no certificate was seen at "+address)
}

func TestTargetWithoutProbeAndReloadIsDoneWhenTheFilesAreThere(t *testing.T) {
	f := setup(t, func(t *domain.Target) { t.ProbeAddress, t.File.Reload = "", "" })
	f.bind()
	v := f.issue(1)
	f.added(v)
	f.drive()
	require.Equal(t, domain.Succeeded, f.deployment(1).State)
	require.Equal(t, v.key, f.read("key.pem"))
}

func TestKeyThatIsNotReleased(t *testing.T) {
	tests := map[string]struct {
		err     error
		prepare func(f *fixture)
		state   domain.State
		detail  string
	}{
		"destroyed":    {errs.New(errs.Precondition, "KEY_DESTROYED", "the key key_1 was destroyed"), nil, domain.Failed, "the key key_1 was not released: the key key_1 was destroyed"},
		"keys is away": {errs.New(errs.Unavailable, "", "keys is away"), nil, domain.Installing, "the key key_1 was not released: keys is away"},
		"made elsewhere": {nil, func(f *fixture) { f.owners.versions["ver_1"].GetVersion().GetFacts().KeyId = "" }, domain.Failed,
			"the key of the version ver_1 is not in the custody of this platform; bind it to a target without keyPath and bundlePath, or request it with a key made here"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := setup(t)
			f.bind()
			f.owners.keysErr = tt.err
			v := f.issue(1)
			if tt.prepare != nil {
				tt.prepare(f)
			}
			f.added(v)
			f.drive()
			d := f.deployment(1)
			require.Equal(t, tt.state, d.State)
			require.Equal(t, domain.Problem{Reason: "DEPLOY_KEY_UNAVAILABLE", Detail: tt.detail, Retrying: true}, d.Problem)
			require.NoFileExists(t, f.dir+"/full.pem")
		})
	}
	t.Run("another key", func(t *testing.T) {
		f := setup(t)
		f.bind()
		f.issue(2)
		v := f.issue(1)
		f.owners.keys["key_1"] = f.owners.keys["key_2"]
		f.added(v)
		f.drive()
		require.Equal(t, "DEPLOY_KEY_MISMATCH", f.deployment(1).Problem.Reason)
		require.NoFileExists(t, f.dir+"/full.pem")
	})
}

func TestVersionThatIsNotWantedAnyMoreIsNotDeployed(t *testing.T) {
	tests := map[string]struct {
		change func(s *inventoryv1.VersionStatus)
		detail string
	}{
		"revoked":  {func(s *inventoryv1.VersionStatus) { s.Version.State = "revoked" }, "the version is revoked; it is not deployed"},
		"unneeded": {func(s *inventoryv1.VersionStatus) { s.Version.State = "unneeded" }, "the version is unneeded; it is not deployed"},
		"deleted":  {func(s *inventoryv1.VersionStatus) { s.CertificateDeleted = true }, "the certificate was deleted; it is not deployed"},
		"expired": {func(s *inventoryv1.VersionStatus) {
			s.Version.Facts.NotAfter = timestamppb.New(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
		}, "the version expired on 2026-11-01T00:00:00Z; it is not deployed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := setup(t)
			f.bind()
			v := f.issue(1)
			tt.change(f.owners.versions["ver_1"])
			f.added(v)
			f.drive()
			d := f.deployment(1)
			require.Equal(t, domain.Superseded, d.State)
			require.Equal(t, domain.Problem{Reason: "DEPLOY_VERSION_NOT_DEPLOYABLE", Detail: tt.detail}, d.Problem)
			require.NoFileExists(t, f.dir+"/full.pem")
		})
	}
	t.Run("revoked while it waits for its next attempt", func(t *testing.T) {
		f := setup(t, reload("broken"))
		f.bind()
		v := f.issue(1)
		f.added(v)
		f.drive()
		f.tell(&certificateeventsv1.VersionRevoked{CertificateId: "crt_1", Version: v.facts})
		require.Equal(t, domain.Superseded, f.deployment(1).State)
	})
}

func TestDeletedCertificateDetachesAndLeavesTheFiles(t *testing.T) {
	f := setup(t, reload("broken"))
	f.bind()
	f.added(f.issue(1))
	f.drive()
	f.tell(&certificateeventsv1.Deleted{CertificateId: "crt_1"})
	f.drive()
	require.False(t, f.binding().Attached)
	require.Equal(t, domain.Superseded, f.deployment(1).State)
	require.FileExists(t, f.dir+"/full.pem")
	require.NoError(t, f.DeleteTarget(t.Context(), f.who, f.target.ID), "the target is free")
	f.told()
	f.clk.Advance(31 * 24 * time.Hour)
	testkit.Eventually(t, func() bool {
		require.NoError(t, f.Forget(t.Context()))
		_, err := f.Bindings.Get(t.Context(), domain.BindingID("crt_1", f.target.ID))
		return err != nil && errs.KindOf(err) == errs.NotFound
	}, "the binding is forgotten")
}

// TestCrashAtEveryStep loses what each step found out once, as a SIGKILL between the outside call and the write would; the deployment ends the same.
func TestCrashAtEveryStep(t *testing.T) {
	for _, command := range []string{"reload", ""} {
		for _, state := range []string{domain.Queued, domain.Installing, domain.Activating, domain.Verifying, domain.Succeeded} {
			t.Run(fmt.Sprintf("%s with command %q", state, command), func(t *testing.T) {
				f := setup(t, func(t *domain.Target) {
					t.File.Reload = command
					if command == "" {
						t.ProbeAddress = ""
					}
				})
				f.bind()
				f.added(f.issue(1))
				lost := 0
				lose := func(d docstore.Doc[domain.Deployment]) bool {
					if d.Body.State == state && lost < 2 {
						lost++
						return true
					}
					return false
				}
				f.drive(lose)
				v := f.issue(2)
				f.added(v)
				lost = 0
				f.drive(lose)
				require.Equal(t, domain.Succeeded, f.deployment(2).State)
				require.Equal(t, v.key, f.read("key.pem"))
				require.Equal(t, "ver_2", f.binding().ServedVersionID)
				if command != "" {
					require.Equal(t, v.facts.GetFingerprintSha256(), f.served())
				}
				require.Equal(t, []string{"deployment.started", "deployment.succeeded", "deployment.started", "deployment.succeeded"}, f.told())
			})
		}
	}
	for _, phase := range []string{domain.PhaseRestore, domain.PhaseReload, domain.PhaseVerify} {
		t.Run("rolling back, "+phase, func(t *testing.T) {
			f := setup(t, reload("picky"))
			f.bind()
			one := f.issue(1)
			f.added(one)
			f.drive()
			require.NoError(t, os.WriteFile(f.dir+"/refuse", nil, 0o600))
			f.added(f.issue(2))
			lost := 0
			f.drive(func(d docstore.Doc[domain.Deployment]) bool {
				if d.Body.Phase == domain.PhaseRestore {
					_ = os.Remove(f.dir + "/refuse") // the way back works
				}
				if d.Body.Phase == phase && lost < 2 {
					lost++
					return true
				}
				return false
			})
			require.Equal(t, 2, lost)
			require.Equal(t, domain.RolledBack, f.deployment(2).State)
			require.Equal(t, one.key, f.read("key.pem"))
			require.Equal(t, one.facts.GetFingerprintSha256(), f.served())
		})
	}
}

func TestStoreRecoveredFromABackupGoesOnAboveTheHost(t *testing.T) {
	f := setup(t)
	b := f.bind()
	files, err := f.target.Body.File.Files([][]byte{f.issue(9).der})
	require.NoError(t, err)
	v := f.issue(1)
	require.NoError(t, f.hosts.host.Install(t.Context(), filehost.Installation{Binding: b.ID, Generation: 7, Fingerprint: "x", Files: files}, []byte("k")))
	f.added(v)
	f.drive()
	require.Equal(t, domain.Superseded, f.deployment(1).State)
	require.Equal(t, "DEPLOY_FENCED", f.deployment(1).Problem.Reason)
	require.EqualValues(t, 8, f.binding().Generation)
	require.Equal(t, domain.Succeeded, f.deployment(8).State)
	require.Equal(t, v.facts.GetFingerprintSha256(), f.served())
}

func TestHostThatForbidsAfterwardsIsObeyed(t *testing.T) {
	f := setup(t)
	f.bind()
	f.hosts.host = filehost.New("local", filehost.Config{AllowedRoots: []string{t.TempDir()}})
	f.added(f.issue(1))
	f.drive()
	d := f.deployment(1)
	require.Equal(t, domain.Failed, d.State)
	require.Equal(t, "DEPLOY_PATH_NOT_ALLOWED", d.Problem.Reason)
	require.NoFileExists(t, f.dir+"/full.pem")
	require.Zero(t, f.owners.releases, "no key leaves keys for what is not allowed")
}

func TestTargetIsRefusedAtTheDoor(t *testing.T) {
	f := setup(t)
	tests := map[string]struct {
		file   domain.FileTarget
		reason string
		msg    string
	}{
		"an unknown host":    {domain.FileTarget{Host: "web1", FullchainPath: f.dir + "/x.pem"}, "DEPLOY_HOST_UNKNOWN", "configured are local"},
		"a path outside":     {domain.FileTarget{FullchainPath: "/etc/passwd"}, "DEPLOY_PATH_NOT_ALLOWED", "allowed are files below " + f.dir},
		"an unknown command": {domain.FileTarget{FullchainPath: f.dir + "/x.pem", Reload: "sh"}, "DEPLOY_COMMAND_UNKNOWN", "allowed are broken, hang, ignore, picky, reload"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.CreateTarget(t.Context(), f.who, "", nil, domain.Target{File: tt.file})
			require.Equal(t, tt.reason, errs.ReasonOf(err))
			require.ErrorContains(t, err, tt.msg)
		})
	}
}

func TestBindings(t *testing.T) {
	f := setup(t)
	b := f.bind()
	t.Run("the same again is the same", func(t *testing.T) {
		require.Equal(t, b.ID, f.bind().ID)
	})
	t.Run("a second certificate on the same files is refused", func(t *testing.T) {
		_, err := f.EnsureBinding(t.Context(), app.Bind{CertificateID: "crt_2", TargetID: f.target.ID, Team: "web"})
		require.Equal(t, "TARGET_TAKEN", errs.ReasonOf(err))
		require.ErrorContains(t, err, "serves the certificate crt_1 already (binding "+b.ID+")")
	})
	t.Run("a bound target is not deleted", func(t *testing.T) {
		err := f.DeleteTarget(t.Context(), f.who, f.target.ID)
		require.Equal(t, "TARGET_BOUND", errs.ReasonOf(err))
		require.ErrorContains(t, err, b.ID)
	})
	t.Run("another team's certificate is not there", func(t *testing.T) {
		f.owners.certificate = &inventoryv1.Certificate{Id: "crt_3", Team: "db"}
		_, err := f.CreateBinding(t.Context(), f.who, "crt_3", f.target.ID)
		require.Equal(t, "CERTIFICATE_NOT_FOUND", errs.ReasonOf(err))
		_, err = f.CreateBinding(t.Context(), app.Caller{Subject: "user:root", Team: "default", All: true}, "crt_3", f.target.ID)
		require.Equal(t, "BINDING_OTHER_TEAM", errs.ReasonOf(err))
		_, err = f.EnsureBinding(t.Context(), app.Bind{CertificateID: "crt_3", TargetID: f.target.ID, Team: "db"})
		require.Equal(t, "BINDING_OTHER_TEAM", errs.ReasonOf(err))
	})
	t.Run("another team's target is not there", func(t *testing.T) {
		other := app.Caller{Subject: "user:x", Team: "db"}
		_, err := f.Target(t.Context(), other, f.target.ID)
		require.Equal(t, "TARGET_NOT_FOUND", errs.ReasonOf(err))
		require.Equal(t, "BINDING_NOT_FOUND", errs.ReasonOf(f.DeleteBinding(t.Context(), other, b.ID)))
		page, err := f.ListBindings(t.Context(), other, "", 0, "")
		require.NoError(t, err)
		require.Empty(t, page.Docs)
	})
	t.Run("lists filter", func(t *testing.T) {
		for filter, want := range map[string]int{"": 1, "certificate=crt_1": 1, "certificate=crt_9": 0, "target=" + f.target.ID + " AND certificate=crt_1": 1} {
			page, err := f.ListBindings(t.Context(), f.who, filter, 0, "")
			require.NoError(t, err)
			require.Len(t, page.Docs, want, filter)
		}
		_, err := f.ListBindings(t.Context(), f.who, "owner=x", 0, "")
		require.Equal(t, "BAD_FILTER", errs.ReasonOf(err))
	})
	t.Run("a team's fact does not move another team's binding", func(t *testing.T) {
		require.NoError(t, f.VersionCurrent(t.Context(), "crt_1", "db", "ver_x", 99))
		require.EqualValues(t, 0, f.binding().Generation)
	})
	t.Run("detached, the target takes another certificate", func(t *testing.T) {
		require.NoError(t, f.DeleteBinding(t.Context(), f.who, b.ID))
		_, err := f.EnsureBinding(t.Context(), app.Bind{CertificateID: "crt_2", TargetID: f.target.ID, Team: "web"})
		require.NoError(t, err)
		_, err = f.EnsureBinding(t.Context(), app.Bind{CertificateID: "crt_1", TargetID: f.target.ID, Team: "web"})
		require.Equal(t, "TARGET_TAKEN", errs.ReasonOf(err))
	})
}

func TestRetryIsDueNow(t *testing.T) {
	f := setup(t, reload("broken"))
	f.bind()
	f.added(f.issue(1))
	f.drive()
	id := domain.DeploymentID(domain.BindingID("crt_1", f.target.ID), 1)
	d, err := f.RetryDeployment(t.Context(), f.who, id)
	require.NoError(t, err)
	require.Equal(t, f.clk.Now(), d.WorkAt)
	f.drive()
	require.EqualValues(t, 2, f.deployment(1).Attempts)
	require.Equal(t, f.clk.Now().Add(10*time.Minute), f.deployment(1).RetryAt)
	for filter, want := range map[string]int{"state=failed": 1, "state=stuck": 0, "binding=" + f.deployment(1).BindingID: 1, "certificate=crt_1 AND state=failed": 1} {
		page, err := f.ListDeployments(t.Context(), f.who, filter, 0, "")
		require.NoError(t, err)
		require.Len(t, page.Docs, want, filter)
	}
	f.tell(&certificateeventsv1.Deleted{CertificateId: "crt_1"})
	f.drive()
	_, err = f.RetryDeployment(t.Context(), f.who, id)
	require.Equal(t, "DEPLOYMENT_FINAL", errs.ReasonOf(err))
}

func TestNoKeyIsStoredToldOrLogged(t *testing.T) {
	f := setup(t, func(t *domain.Target) {
		t.File.BundlePath = strings.TrimSuffix(t.File.KeyPath, "key.pem") + "bundle.pem"
	})
	f.bind()
	v := f.issue(1)
	f.added(v)
	f.drive()
	require.Equal(t, domain.Succeeded, f.deployment(1).State)
	secret := strings.Split(v.key, "\n")[1]
	require.Contains(t, f.read("bundle.pem"), secret)
	raw, err := docstore.Marshal(f.deployment(1))
	require.NoError(t, err)
	require.NotContains(t, string(raw), secret)
	require.False(t, bytes.Contains(raw, f.owners.keys["key_1"]))
	f.told()
	for _, e := range f.pub.Entries() {
		require.NotContains(t, string(e.Data), secret)
	}
	require.NotContains(t, f.log.String(), secret)
}
