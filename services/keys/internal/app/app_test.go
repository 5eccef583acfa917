package app_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"software.sslmate.com/src/go-pkcs12"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/keys/internal/app"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/material"
	"github.com/certwright/certwright/services/keys/internal/transport/consumer"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
)

const day = 24 * time.Hour

type inventory struct {
	status map[string]*inventoryv1.VersionStatus
	err    error
}

func (i *inventory) GetVersionStatus(_ context.Context, in *inventoryv1.GetVersionStatusRequest, _ ...grpc.CallOption) (*inventoryv1.VersionStatus, error) {
	if i.err != nil {
		return nil, i.err
	}
	if s := i.status[in.GetVersionId()]; s != nil {
		return s, nil
	}
	return nil, errs.New(errs.NotFound, "", "no such version")
}

type orders struct{ changes []*ordersv1.OrderChange }

func (o *orders) ListChanges(context.Context, *ordersv1.ListChangesRequest, ...grpc.CallOption) (*ordersv1.ListChangesResponse, error) {
	return &ordersv1.ListChangesResponse{Changes: o.changes, NextCursor: "next"}, nil
}

type fixture struct {
	*app.App
	t         *testing.T
	clk       *clock.Fake
	store     docstore.Store
	pub       testkit.Recorder
	out       *outbox.Outbox
	inventory *inventory
	orders    *orders
	handle    func(ctx context.Context, e bus.Event) error
	n         int64
}

func setup(t *testing.T) *fixture {
	t.Helper()
	clk := clock.NewFake(time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC))
	f := &fixture{t: t, clk: clk, store: memory.New(clk), inventory: &inventory{status: map[string]*inventoryv1.VersionStatus{}}, orders: &orders{}}
	f.out = outbox.New(outbox.Config{Store: f.store, Bus: &f.pub, Source: "keys", Clock: clk, Logger: slog.New(slog.DiscardHandler)})
	testkit.Run(t, f.out.Run)
	sealer, err := seal.OpenKEK(t.Context(), f.store, filepath.Join(t.TempDir(), "keys.kek"), "keys")
	require.NoError(t, err)
	f.App = &app.App{
		Keys: testkit.Open[domain.Key](t, f.out, app.Spec()), Sealer: sealer, Inventory: f.inventory, Orders: f.orders, Clock: clk, KeepPrevious: 1,
		Times: domain.Times{Unanswered: 31 * day, Review: 30 * day, Retention: 30 * day, Forget: 400 * day},
	}
	f.handle = consumer.New(f.App).Handle
	return f
}

func request(n int) domain.Request {
	return domain.Request{OrderID: fmt.Sprintf("ord_%d", n), CertificateID: "crt_1", Algorithm: domain.ECDSAP256, Names: []string{"a.example"}, Team: "web"}
}

func (f *fixture) ensure(n int) docstore.Doc[domain.Key] {
	f.t.Helper()
	d, err := f.EnsureCSR(f.t.Context(), request(n))
	require.NoError(f.t, err)
	return d
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

func added(n int, state string) *certificateeventsv1.VersionAdded {
	return &certificateeventsv1.VersionAdded{CertificateId: "crt_1", State: state, Version: &typesv1.VersionFacts{
		VersionId: fmt.Sprintf("ver_%d", n), Number: int64(n), OrderId: fmt.Sprintf("ord_%d", n), KeyId: fmt.Sprintf("key_%d", n),
	}}
}

func (f *fixture) states(n int) (out []string) {
	f.t.Helper()
	for i := 1; i <= n; i++ {
		d, err := f.Keys.Get(f.t.Context(), fmt.Sprintf("key_%d", i))
		require.NoError(f.t, err)
		out = append(out, d.Body.State)
	}
	return out
}

func (f *fixture) told() []string {
	f.t.Helper()
	require.NoError(f.t, f.out.Flush(f.t.Context()))
	return testkit.Types(f.t, f.pub.Entries())
}

func TestEnsureCSRAnswersTheSameForEver(t *testing.T) {
	f := setup(t)
	results := make([]docstore.Doc[domain.Key], 16)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i], _ = f.EnsureCSR(t.Context(), request(1)) })
	}
	wg.Wait()
	for _, d := range results {
		require.Equal(t, "key_1", d.ID)
		require.Equal(t, results[0].Body.CSR, d.Body.CSR)
	}
	csr, err := x509.ParseCertificateRequest(results[0].Body.CSR)
	require.NoError(t, err)
	require.Equal(t, []string{"a.example"}, csr.DNSNames)
	require.Equal(t, "web", results[0].Team)
	require.Equal(t, []string{"key.created"}, f.told())

	other := request(1)
	other.Names = []string{"b.example"}
	_, err = f.EnsureCSR(t.Context(), other)
	require.Equal(t, "KEY_REQUEST_DIFFERS", errs.ReasonOf(err))
	weak := request(2)
	weak.Algorithm = "RSA_1024"
	_, err = f.EnsureCSR(t.Context(), weak)
	require.ErrorContains(t, err, "allowed are ECDSA_P256, ECDSA_P384, RSA_2048, RSA_3072, RSA_4096")
}

func TestKeysLifeOverThreeVersions(t *testing.T) {
	f := setup(t)
	for n := 1; n <= 3; n++ {
		f.ensure(n)
		f.tell(added(n, "current"))
	}
	require.Equal(t, []string{domain.Destroyed, domain.Deactivated, domain.Active}, f.states(3))
	gone, err := f.Keys.Get(t.Context(), "key_1")
	require.NoError(t, err)
	require.Empty(t, gone.Body.Sealed.Ciphertext)
	require.Equal(t, domain.Superseded, gone.Body.DestroyReason)
	require.Equal(t, []string{"key.created", "key.activated", "key.created", "key.activated", "key.created", "key.activated", "key.destroyed"}, f.told())
}

func TestVersionsOutOfOrderEndTheSame(t *testing.T) {
	f := setup(t)
	for n := 1; n <= 3; n++ {
		f.ensure(n)
	}
	f.tell(added(3, "current"))
	f.tell(added(1, "current"))
	f.tell(added(2, "current"))
	require.Equal(t, []string{domain.Destroyed, domain.Deactivated, domain.Active}, f.states(3))
}

func TestOrderThatEndsDestroysItsKey(t *testing.T) {
	tests := map[string]struct {
		fact   proto.Message
		reason string
	}{
		"failed":    {&ordereventsv1.Failed{OrderId: "ord_1", CertificateId: "crt_1"}, domain.OrderEnded},
		"rejected":  {&ordereventsv1.Rejected{OrderId: "ord_1", CertificateId: "crt_1"}, domain.OrderEnded},
		"cancelled": {&ordereventsv1.Cancelled{OrderId: "ord_1", CertificateId: "crt_1"}, domain.OrderEnded},
		"refused":   {&certificateeventsv1.VersionRefused{OrderId: "ord_1", CertificateId: "crt_1"}, domain.VersionRefused},
	}
	for name, tt := range tests {
		t.Run(name+" after the key was made", func(t *testing.T) {
			f := setup(t)
			f.ensure(1)
			f.tell(tt.fact)
			d, err := f.Keys.Get(t.Context(), "key_1")
			require.NoError(t, err)
			require.Equal(t, domain.Destroyed, d.Body.State)
			require.Equal(t, tt.reason, d.Body.DestroyReason)
			require.Equal(t, []string{"key.created", "key.destroyed"}, f.told())
		})
		t.Run(name+" before the key was asked for", func(t *testing.T) {
			f := setup(t)
			f.tell(tt.fact)
			_, err := f.EnsureCSR(t.Context(), request(1))
			require.Equal(t, "ORDER_ENDED", errs.ReasonOf(err))
			require.ErrorContains(t, err, "the order ord_1 has ended ("+tt.reason+"): it gets no key")
			require.Empty(t, f.told())
		})
		t.Run(name+" after the version was added changes nothing", func(t *testing.T) {
			f := setup(t)
			f.ensure(1)
			f.tell(added(1, "current"))
			f.tell(tt.fact)
			require.Equal(t, []string{domain.Active}, f.states(1))
		})
	}
}

func TestReleaseIsForTheReceiverAndTheDeploymentAlone(t *testing.T) {
	f := setup(t)
	d := f.ensure(1)
	receiver, err := seal.NewReceiver()
	require.NoError(t, err)
	sealed, err := f.Release(t.Context(), d.ID, "dep_1", receiver.Public())
	require.NoError(t, err)
	pkcs8, err := receiver.Open(sealed, []byte("release:dep_1"))
	require.NoError(t, err)
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(d.Body.CSR)
	require.NoError(t, err)
	require.True(t, key.(*ecdsa.PrivateKey).PublicKey.Equal(csr.PublicKey), "the key fits the CSR")

	_, err = receiver.Open(sealed, []byte("release:dep_2"))
	require.Error(t, err, "another deployment does not open it")
	stranger, err := seal.NewReceiver()
	require.NoError(t, err)
	_, err = stranger.Open(sealed, []byte("release:dep_1"))
	require.Error(t, err, "nor does another receiver")

	_, err = f.Release(t.Context(), d.ID, "dep_1", []byte("short"))
	require.Equal(t, "RECEIVER_KEY", errs.ReasonOf(err))
	_, err = f.Release(t.Context(), "key_9", "dep_1", receiver.Public())
	require.Equal(t, "KEY_NOT_FOUND", errs.ReasonOf(err))
	_, err = f.Release(t.Context(), d.ID, "", receiver.Public())
	require.Equal(t, "RELEASE_INVALID", errs.ReasonOf(err))

	got, err := f.Keys.Get(t.Context(), d.ID)
	require.NoError(t, err)
	require.EqualValues(t, 1, got.Body.Releases, "what was refused is not counted")
	require.Equal(t, "deployment:dep_1", got.Body.LastReleases[0].Receiver)
	require.Equal(t, []string{"key.created", "key.released"}, f.told())

	f.tell(&certificateeventsv1.VersionRevoked{CertificateId: "crt_1", Version: added(1, "").GetVersion(), Reason: "keyCompromise"})
	_, err = f.Release(t.Context(), d.ID, "dep_1", receiver.Public())
	require.Equal(t, "KEY_COMPROMISED", errs.ReasonOf(err))
}

func TestExportIsForTheTeam(t *testing.T) {
	f := setup(t)
	f.ensure(1)
	ours := func(team string) bool { return team == "web" }
	_, err := f.Export(t.Context(), "key_1", material.Export{}, "user:u", ours)
	require.Equal(t, "KEY_NOT_ACTIVE", errs.ReasonOf(err))
	f.tell(added(1, "current"))
	_, err = f.Export(t.Context(), "key_1", material.Export{}, "user:u", func(string) bool { return false })
	require.Equal(t, "KEY_NOT_FOUND", errs.ReasonOf(err))
	text, err := f.Export(t.Context(), "key_1", material.Export{}, "user:u", ours)
	require.NoError(t, err)
	block, _ := pem.Decode(text.RevealBytes())
	require.Equal(t, "PRIVATE KEY", block.Type)
	_, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", text, text, text), "PRIVATE KEY")
	require.Contains(t, f.told(), "key.released")
}

func TestNoKeyIsStoredOrToldInTheClear(t *testing.T) {
	f := setup(t)
	d := f.ensure(1)
	f.tell(added(1, "current"))
	text, err := f.Export(t.Context(), "key_1", material.Export{}, "user:u", func(string) bool { return true })
	require.NoError(t, err)
	block, _ := pem.Decode(text.RevealBytes())
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	scalar, err := key.(interface{ Bytes() ([]byte, error) }).Bytes()
	require.NoError(t, err)
	raw, err := f.store.Get(t.Context(), "keys", d.ID)
	require.NoError(t, err)
	require.False(t, bytes.Contains(raw, scalar))
	require.NotEmpty(t, f.told())
	for _, e := range f.pub.Entries() {
		require.False(t, bytes.Contains(e.Data, []byte("PRIVATE KEY")))
		require.False(t, bytes.Contains(e.Data, scalar))
	}
}

func TestSealedKeyOfAnotherDocumentDoesNotOpen(t *testing.T) {
	f := setup(t)
	one, two := f.ensure(1), f.ensure(2)
	_, err := f.Keys.Change(t.Context(), two.ID, func(d *docstore.Doc[domain.Key]) ([]outbox.Fact, error) {
		d.Body.Sealed = one.Body.Sealed
		return nil, nil
	})
	require.NoError(t, err)
	receiver, err := seal.NewReceiver()
	require.NoError(t, err)
	_, err = f.Release(t.Context(), two.ID, "dep_1", receiver.Public())
	require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err))
}

func TestDeletedCertificateKeepsItsKeysForTheRetention(t *testing.T) {
	f := setup(t)
	f.ensure(1)
	f.tell(added(1, "current"))
	f.tell(&certificateeventsv1.Deleted{CertificateId: "crt_1"})
	d, err := f.Keys.Get(t.Context(), "key_1")
	require.NoError(t, err)
	require.Equal(t, f.clk.Now().Add(30*day), d.WorkAt)
	require.Equal(t, domain.Active, d.Body.State)
	f.clk.Advance(30 * day)

	f.inventory.err = errs.New(errs.Unavailable, "", "inventory is away")
	_, err = f.Review(t.Context(), d)
	require.Equal(t, errs.Unavailable, errs.KindOf(err), "nothing is destroyed while inventory cannot be asked")
	f.inventory.err = nil
	f.review("key_1")
	require.Equal(t, []string{domain.Destroyed}, f.states(1))
}

func (f *fixture) review(keyID string) {
	f.t.Helper()
	d, err := f.Keys.Get(f.t.Context(), keyID)
	require.NoError(f.t, err)
	r, err := f.Review(f.t.Context(), d)
	require.NoError(f.t, err)
	facts, err := r.Apply(&d)
	require.NoError(f.t, err)
	require.NoError(f.t, f.Keys.Save(f.t.Context(), &d, facts...))
}

func TestLostFactsAreMadeUpForFromTheOrders(t *testing.T) {
	f := setup(t)
	for n := 1; n <= 4; n++ {
		f.ensure(n)
	}
	f.inventory.status["ver_2"] = &inventoryv1.VersionStatus{Version: &inventoryv1.Version{State: "current", Facts: &typesv1.VersionFacts{VersionId: "ver_2", Number: 1, OrderId: "ord_2"}}}
	f.orders.changes = []*ordersv1.OrderChange{
		{Order: &ordersv1.Order{Id: "ord_1", State: "cancelled"}},
		{Order: &ordersv1.Order{Id: "ord_2", State: "issued", VersionId: "ver_2"}},
		{Order: &ordersv1.Order{Id: "ord_3", State: "issued"}},
		{Order: &ordersv1.Order{Id: "ord_4", State: "authorizing"}},
		{Order: &ordersv1.Order{Id: "ord_9", State: "failed"}},
	}
	for range 2 {
		page, err := f.ReadOrders(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, "next", page.Next)
	}
	require.Equal(t, []string{domain.Destroyed, domain.Active, domain.PreActive, domain.PreActive}, f.states(4))
	f.clk.Advance(32 * day)
	f.review("key_3")
	require.Equal(t, domain.Destroyed, f.states(3)[2], "a key that nobody ever told an outcome of is not left behind")
}

func TestRecordsOfDestroyedKeysAreForgotten(t *testing.T) {
	f := setup(t)
	f.ensure(1)
	f.ensure(2)
	f.tell(&ordereventsv1.Failed{OrderId: "ord_1"})
	f.told()
	f.clk.Advance(399 * day)
	require.NoError(t, f.Forget(t.Context()))
	require.Len(t, f.states(2), 2)
	f.clk.Advance(2 * day)
	testkit.Eventually(t, func() bool { // the outbox has to be cleared first
		require.NoError(t, f.Forget(t.Context()))
		_, err := f.Keys.Get(t.Context(), "key_1")
		return errs.KindOf(err) == errs.NotFound && err != nil
	}, "the record is forgotten")
	_, err := f.Keys.Get(t.Context(), "key_2")
	require.NoError(t, err)
}

func TestListFilters(t *testing.T) {
	f := setup(t)
	f.ensure(1)
	f.ensure(2)
	f.tell(added(1, "current"))
	tests := map[string]struct {
		filter, team string
		want         []string
		reason       string
	}{
		"everything":                  {"", "", []string{"key_1", "key_2"}, ""},
		"one team":                    {"", "web", []string{"key_1", "key_2"}, ""},
		"another team sees nothing":   {"", "db", nil, ""},
		"by state":                    {"state=active", "web", []string{"key_1"}, ""},
		"by certificate and state":    {"certificate=crt_1 AND state=pre_active", "", []string{"key_2"}, ""},
		"an unknown field is refused": {"owner=x", "", nil, "BAD_FILTER"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			page, err := f.List(t.Context(), tt.filter, tt.team, 0, "")
			if tt.reason != "" {
				require.Equal(t, tt.reason, errs.ReasonOf(err))
				return
			}
			require.NoError(t, err)
			var ids []string
			for _, d := range page.Docs {
				ids = append(ids, d.ID)
			}
			require.Empty(t, cmp.Diff(tt.want, ids))
		})
	}
}

func TestAKeystoreHasTheChainOfTheVersion(t *testing.T) {
	f := setup(t)
	f.ensure(1)
	f.tell(added(1, "current"))
	ask := func(e material.Export) (secret.Value, error) {
		return f.Export(t.Context(), "key_1", e, "user:u", func(string) bool { return true })
	}
	e := material.Export{Format: material.FormatPKCS12, Password: secret.New("correct horse")}
	f.inventory.err = errs.New(errs.Unavailable, "", "inventory is away")
	_, err := ask(e)
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	f.inventory.err = nil

	d, err := f.Keys.Get(t.Context(), "key_1")
	require.NoError(t, err)
	require.Zero(t, d.Body.Releases, "nothing has left")
	pkcs8, err := f.Sealer.Open(t.Context(), seal.Sealed(d.Body.Sealed), []byte("key_1"))
	require.NoError(t, err)
	key, err := material.Parse(pkcs8)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	f.inventory.status["ver_1"] = &inventoryv1.VersionStatus{ChainDer: [][]byte{leaf}}
	file, err := ask(e)
	require.NoError(t, err)
	_, got, _, err := pkcs12.DecodeChain(file.RevealBytes(), "correct horse")
	require.NoError(t, err)
	require.Equal(t, leaf, got.Raw)
	require.Contains(t, f.told(), "key.released")

	der, err := ask(material.Export{Format: material.FormatDER})
	require.NoError(t, err)
	require.Equal(t, pkcs8, der.RevealBytes())
	csr, err := f.CSR(t.Context(), "key_1", func(string) bool { return true })
	require.NoError(t, err)
	require.Equal(t, d.Body.CSR, csr)
	_, err = f.CSR(t.Context(), "key_1", func(string) bool { return false })
	require.Equal(t, "KEY_NOT_FOUND", errs.ReasonOf(err))
}
