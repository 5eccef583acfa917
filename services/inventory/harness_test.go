package inventory_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/inventory/internal/app"
	"github.com/certwright/certwright/services/inventory/internal/transport/consumer"
	transport "github.com/certwright/certwright/services/inventory/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// world is inventory on a store in memory, with everything around it faked.
type world struct {
	t     require.TestingT
	clk   *clock.Fake
	store docstore.Store
	out   *outbox.Outbox
	app   *app.App
	api   *transport.Server
	said  testkit.Recorder // what was told at once (TellAgain); what was told by writes stays in the outbox, since no relay runs
	gone  int              // of said: they are on the bus for good
	peers *peers
	seq   int64
}

// peers are the siblings.
type peers struct {
	mu      sync.Mutex
	issuers map[string]app.Issuer
	away    error
	bindErr error
	bound   []string
}

func (p *peers) Issuer(_ context.Context, given string) (app.Issuer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away != nil {
		return app.Issuer{}, p.away
	}
	for _, is := range p.issuers {
		if is.ID == given || is.DisplayName == given {
			return is, nil
		}
	}
	return app.Issuer{}, errs.New(errs.NotFound, "", "no such issuer")
}

func (p *peers) EnsureBinding(_ context.Context, certificate, target, team, owner string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bindErr != nil {
		return "", p.bindErr
	}
	p.bound = append(p.bound, fmt.Sprintf("%s %s %s %s", certificate, target, team, owner))
	return "bnd_" + target, nil
}

func (p *peers) failBindings(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bindErr = err
}

func newWorld(t require.TestingT) *world {
	clk := clock.NewFake(start)
	return newWorldOn(t, clk, memory.New(clk))
}

func newWorldOn(t require.TestingT, clk *clock.Fake, store docstore.Store) *world {
	w := &world{t: t, clk: clk, store: store, peers: &peers{issuers: map[string]app.Issuer{
		"a": {ID: "iss_1", DisplayName: "Main CA"}, "b": {ID: "iss_2", DisplayName: "Old CA", Disabled: true}, "c": {ID: "iss_3", DisplayName: "Theirs", Team: "red"},
	}}}
	logger := slog.New(slog.DiscardHandler)
	w.out = outbox.New(outbox.Config{Store: w.store, Bus: &w.said, Source: "inventory", Clock: w.clk, Logger: logger})
	var err error
	w.app, err = app.Open(context.Background(), w.out, w.peers, w.peers, logger, app.Config{RevokeWait: 24 * time.Hour, TombstoneKeep: 30 * 24 * time.Hour})
	require.NoError(t, err)
	w.api = &transport.Server{App: w.app}
	return w
}

// as is a context of a person of a team, person of the team "default".
func as(team string) context.Context {
	return authz.NewContext(context.Background(), authz.Principal{Subject: "token:tok_" + team, Name: "ops of " + team, Team: team, Permissions: []string{"*"}})
}

var (
	person  = as("default")
	machine = authz.NewContext(context.Background(), authz.ForService("renewals"))
)

func request(names ...string) *inventoryv1.CreateCertificateRequest {
	return &inventoryv1.CreateCertificateRequest{Certificate: &inventoryv1.Certificate{Spec: &typesv1.CertificateSpec{Issuer: "Main CA", Names: names}}}
}

func (w *world) create(names ...string) *inventoryv1.Certificate {
	c, err := w.api.CreateCertificate(person, request(names...))
	require.NoError(w.t, err)
	return c
}

func (w *world) get(id string) *inventoryv1.Certificate {
	c, err := w.api.GetCertificate(person, &inventoryv1.GetCertificateRequest{Id: id})
	require.NoError(w.t, err)
	return c
}

func (w *world) doc(id string) app.Certificate {
	doc, err := w.app.Certs.Get(context.Background(), id)
	require.NoError(w.t, err)
	return doc
}

// hear delivers a fact of a sibling.
func (w *world) hear(m proto.Message) {
	w.seq++
	w.hearAs(m, "epoch", w.seq)
}

func (w *world) hearAs(m proto.Message, epoch string, revision int64) {
	require.NoError(w.t, w.deliver(m, epoch, revision))
}

func (w *world) deliver(m proto.Message, epoch string, revision int64) error {
	e := testkit.Event(w.t, m, bus.Event{
		ID: fmt.Sprintf("x-%d", revision), Source: "test", Subject: "x", Time: w.clk.Now(), Revision: revision, Epoch: epoch, Team: "default",
	})
	for _, c := range consumer.Consumers(w.app) {
		if slices.Contains(c.Types, e.Type) {
			return c.Handle(context.Background(), e)
		}
	}
	return nil
}

// told is every fact of M's type that was told, in order, repeats included.
func told[M proto.Message](w *world) []M {
	var out []M
	var none M
	for _, e := range testkit.Events(w.t, w.entries()) {
		if e.Type == bus.TypeOf(none) {
			out = append(out, testkit.Message(w.t, e).(M))
		}
	}
	return out
}

func (w *world) entries() []docstore.Entry {
	pending, err := w.store.Outbox(context.Background(), clock.Never, 1_000_000)
	require.NoError(w.t, err)
	var out []docstore.Entry
	for _, p := range pending {
		if p.Entry.Kind == docstore.EntryEvent {
			out = append(out, p.Entry)
		}
	}
	return append(out, w.said.Entries()[w.gone:]...)
}

// types of every fact that was told, in order.
func (w *world) types() []string { return testkit.Types(w.t, w.entries()) }

// relayed pretends that the relay has brought everything to the bus for good.
func (w *world) relayed() {
	pending, err := w.store.Outbox(context.Background(), clock.Never, 1_000_000)
	require.NoError(w.t, err)
	require.NoError(w.t, w.store.Clear(context.Background(), pending))
	w.gone = len(w.said.Entries())
}

// awaited are the natural keys whose answer the certificate waits for.
func (w *world) awaited(id string) []string {
	out := []string{}
	for _, k := range w.doc(id).Kept {
		if k.Await {
			out = append(out, k.Key)
		}
	}
	return out
}

func (w *world) issue(c *inventoryv1.Certificate) *inventoryv1.Certificate {
	w.hear(issued(c.GetId(), c.GetIntent().GetOrderId(), c.GetIntent().GetNumber()))
	return w.get(c.GetId())
}

// renewed opens an intent and has it issued.
func (w *world) renewed(id string) *inventoryv1.Certificate {
	_, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: id})
	require.NoError(w.t, err)
	return w.issue(w.get(id))
}

func (w *world) sweep() {
	_, err := w.api.Sweep(person, &emptypb.Empty{})
	require.NoError(w.t, err)
}

func issued(certificate, order string, number int64) *ordereventsv1.Issued {
	return &ordereventsv1.Issued{
		OrderId: order, CertificateId: certificate, IntentNumber: number, ChainDer: chain(), IssuerId: "iss_1", AccountId: "acc_1", KeyId: "key_1",
	}
}

// requested are the numbers of the intents that were told, each with its order, distinct.
func (w *world) requested(certificate string) map[int64]string {
	out := map[int64]string{}
	for _, r := range told[*certificateeventsv1.Requested](w) {
		if r.GetCertificateId() != certificate {
			continue
		}
		if before, ok := out[r.GetIntentNumber()]; ok {
			require.Equal(w.t, before, r.GetOrderId(), "one order per intent")
		}
		out[r.GetIntentNumber()] = r.GetOrderId()
	}
	return out
}

var chain = sync.OnceValue(func() [][]byte {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c, 0xde, 0x01, 0xc8, 0xd4},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(0x87654321), DNSNames: []string{"a.example.org", "b.example.org"}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(90 * 24 * time.Hour),
	}
	ca.Subject = pkix.Name{CommonName: "Test CA"}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(err)
	return [][]byte{der, caDER}
})

// mustFail returns the classified error.
func mustFail(t *testing.T, kind errs.Kind, reason string, err error) *errs.Error {
	t.Helper()
	require.Error(t, err)
	e := errs.As(err)
	require.NotNil(t, e, "%v", err)
	require.Equal(t, kind, e.Kind, "%v", err)
	require.Equal(t, reason, errs.ReasonOf(err), "%v", err)
	return e
}
