package service_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	certificatev1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	orderv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/sqlite"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/heal"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/telemetry"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

// TestMain looks for goroutines left over; the embedded server now and then forgets two of its own.
func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(server+"/ats.Register.func1"), goleak.IgnoreTopFunction(server+".(*fileStore).flushStreamStateLoop"))
}

type world struct {
	*service.Process
	nats *testkit.Server

	mu    sync.Mutex
	ready []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test", Output: io.Discard})
	require.NoError(t, err)
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	dir := t.TempDir()
	w := &world{nats: testkit.NATS(t)}
	w.Process = &service.Process{
		Clock: clock.System(), Telemetry: tel, NATS: w.nats.Conn(), SyncInterval: 50 * time.Millisecond, Replicas: 1, Network: service.NewInProcess(),
		Verifier: authz.NewVerifier("test", public), Signer: authz.NewSigner(private, "test"), DataDir: dir,
		Timing: service.Timing{
			FirstRepeat: 300 * time.Millisecond, MaxRepeat: time.Second, OutboxSweep: 100 * time.Millisecond, Abandoned: 500 * time.Millisecond, Heal: time.Hour,
		},
		OpenStore: func(ctx context.Context, name string) (docstore.Store, error) {
			return sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, name, "store.db")})
		},
		Ready: func(name string, ready bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if ready {
				w.ready = append(w.ready, name+" ready")
			} else {
				w.ready = append(w.ready, name+" not ready")
			}
		},
	}
	return w
}

// start serves until stop is called, which returns what Serve returned.
func (w *world) start(t *testing.T, name string, set func(*service.Platform)) (stop func() error) {
	t.Helper()
	p, closeAll, err := w.Platform(t.Context(), name)
	require.NoError(t, err)
	set(p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		closeAll()
		return err
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// identity takes audit entries.
type identity struct {
	identityv1.UnimplementedIdentityServiceServer
	mu      sync.Mutex
	entries []string
}

func (i *identity) Append(_ context.Context, req *identityv1.AppendRequest) (*identityv1.AppendResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range req.GetEntries() {
		i.entries = append(i.entries, e.GetActor()+" "+e.GetSubject())
	}
	return &identityv1.AppendResponse{}, nil
}

type record struct {
	State string `bson:"state"`
}

// owner is a small inventory: one collection, whose certificates await an order.
type owner struct {
	inventoryv1.UnimplementedInventoryServiceServer
	coll *outbox.Collection[record]
}

func (o *owner) DeleteCertificate(ctx context.Context, req *inventoryv1.DeleteCertificateRequest) (*inventoryv1.DeleteCertificateResponse, error) {
	doc := docstore.Doc[record]{Meta: docstore.Meta{ID: req.GetId(), Team: "default"}, Body: record{State: "asked"}}
	err := o.coll.Insert(ctx, &doc, outbox.Await("order", &certificatev1.Requested{CertificateId: req.GetId()}))
	return &inventoryv1.DeleteCertificateResponse{}, err
}

func (o *owner) ListChanges(ctx context.Context, req *inventoryv1.ListChangesRequest) (*inventoryv1.ListChangesResponse, error) {
	docs, next, more, restarted, err := heal.Changes(ctx, o.coll, "e", req.GetAfterCursor(), int(req.GetPageSize()))
	res := &inventoryv1.ListChangesResponse{NextCursor: next, More: more, Restarted: restarted}
	for _, d := range docs {
		res.Changes = append(res.Changes, &inventoryv1.CertificateChange{Certificate: &inventoryv1.Certificate{Id: d.ID, Owner: d.Body.State}, Revision: d.Revision})
	}
	return res, err
}

func (o *owner) set(t *testing.T, p *service.Platform) {
	t.Helper()
	var err error
	o.coll, err = outbox.Open[record](t.Context(), p.Outbox, docstore.Spec{Name: "certificates"})
	require.NoError(t, err)
	inventoryv1.RegisterInventoryServiceServer(p.Server, o)
	require.NoError(t, p.Bus.Consume(bus.Consumer{Name: "inventory-orders", Types: []string{"order.accepted"}, Handle: func(ctx context.Context, e bus.Event) error {
		var m orderv1.Accepted
		if err := e.Decode(&m); err != nil {
			return err
		}
		_, err := o.coll.Change(ctx, m.GetCertificateId(), func(d *docstore.Doc[record]) ([]outbox.Fact, error) {
			if !outbox.Answered(&d.Meta, "order") {
				return nil, outbox.ErrUnchanged
			}
			d.Body.State, d.WorkAt = "ordered", p.Clock.Now()
			return nil, nil
		})
		return err
	}}))
	p.Go("worker", worker.New(worker.Config[record]{
		Name: "certificates", Coll: o.coll, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Sweep: 100 * time.Millisecond,
		Step: func(context.Context, docstore.Doc[record]) (worker.Result[record], error) {
			return worker.Result[record]{Apply: func(d *docstore.Doc[record]) ([]outbox.Fact, error) {
				d.Body.State, d.WorkAt = "stepped", clock.Never
				return []outbox.Fact{outbox.Tell(&certificatev1.Issued{CertificateId: d.ID})}, nil
			}}, nil
		},
	}).Run)
}

// projection is what renewals knows of the owner's certificates; it drops facts while deaf.
type projection struct {
	mu    sync.Mutex
	known map[string]string
	reads int
}

func (p *projection) get(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

func (p *projection) set(pl *service.Platform) {
	client := inventoryv1.NewInventoryServiceClient(pl.Peer("inventory"))
	pl.Heal("certificates", func(ctx context.Context, cursor string) (heal.Page, error) {
		res, err := client.ListChanges(ctx, &inventoryv1.ListChangesRequest{AfterCursor: cursor})
		if err != nil {
			return heal.Page{}, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reads++
		for _, c := range res.GetChanges() {
			p.known[c.GetCertificate().GetId()] = c.GetCertificate().GetOwner()
		}
		return heal.Page{Next: res.GetNextCursor(), More: res.GetMore(), Restarted: res.GetRestarted()}, nil
	})
}

func TestASmallServiceSurvivesTheLossOfTheBus(t *testing.T) {
	w := newWorld(t)
	ident, inv, known := &identity{}, &owner{}, &projection{known: map[string]string{}}
	w.start(t, "identity", func(p *service.Platform) { identityv1.RegisterIdentityServiceServer(p.Server, ident) })
	stopInventory := w.start(t, "inventory", func(p *service.Platform) { inv.set(t, p) })
	w.start(t, "renewals", known.set)

	// A user asks; the fact is told; nobody answers, since orders is away.
	conn, err := w.Network.Conn("gateway", "inventory", rpc.ClientOptions{Unary: []grpc.UnaryClientInterceptor{
		(&authz.Client{Service: "gateway", Signer: w.Signer, Clock: w.Clock}).Unary,
	}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:usr_1", Permissions: []string{"*"}})
	_, err = inventoryv1.NewInventoryServiceClient(conn).DeleteCertificate(ctx, &inventoryv1.DeleteCertificateRequest{Id: "crt_1"})
	require.NoError(t, err)
	testkit.Eventually(t, func() bool {
		ident.mu.Lock()
		defer ident.mu.Unlock()
		return slices.Contains(ident.entries, "user:usr_1 crt_1")
	}, "the call is in the audit trail")

	// The first fact is surely gone with the streams before orders comes.
	testkit.Eventually(t, func() bool {
		doc, err := inv.coll.Get(t.Context(), "crt_1")
		return err == nil && doc.Kept[0].Times >= 1
	}, "told again")
	known.mu.Lock()
	reads := known.reads
	known.mu.Unlock()
	w.nats.DeleteAll(t.Context())
	testkit.Eventually(t, func() bool { return known.get("crt_1") == "asked" }, "the projection is healed when the stream is a new one, an hour early")
	testkit.Eventually(t, func() bool {
		known.mu.Lock()
		defer known.mu.Unlock()
		return known.reads > reads
	}, "the changes are read again")

	w.start(t, "orders", func(p *service.Platform) {
		orders, err := outbox.Open[record](t.Context(), p.Outbox, docstore.Spec{Name: "orders"})
		require.NoError(t, err)
		require.NoError(t, p.Bus.Consume(bus.Consumer{Name: "orders-requests", Types: []string{"certificate.requested"}, Handle: func(ctx context.Context, e bus.Event) error {
			doc := docstore.Doc[record]{Meta: docstore.Meta{ID: "ord_" + e.Subject, Team: e.Team}}
			err := orders.Insert(ctx, &doc, outbox.Keep("accepted", &orderv1.Accepted{CertificateId: e.Subject}))
			if errs.KindOf(err) == errs.AlreadyExists { // asked again: the same answer again
				if doc, err = orders.Get(ctx, doc.ID); err == nil {
					_, err = orders.TellAgain(ctx, doc, "accepted")
				}
			}
			return err
		}}))
	})
	w.nats.DeleteAll(t.Context()) // once more, in the middle of it
	testkit.Eventually(t, func() bool {
		doc, err := inv.coll.Get(t.Context(), "crt_1")
		return err == nil && doc.Body.State == "stepped" && !outbox.Awaits(doc.Meta, "order")
	}, "the fact was told again until it was answered, and the worker went on")
	w.nats.DeleteAll(t.Context())
	testkit.Eventually(t, func() bool { return known.get("crt_1") == "stepped" }, "the projection is healed again")

	require.NoError(t, stopInventory())
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Contains(t, w.ready, "inventory ready")
	require.Contains(t, w.ready, "inventory not ready")
}

func TestServeStopsAllWhenAPartFails(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		fail func(context.Context) error
		says string
	}{
		{"by an error", func(context.Context) error { return broken }, "orders: bad: broken"},
		{"by a panic", func(context.Context) error { panic("oh") }, "orders: bad: panic: oh"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			p, closeAll, err := w.Platform(t.Context(), "orders")
			require.NoError(t, err)
			defer closeAll()
			ended := make(chan struct{})
			p.Go("good", func(ctx context.Context) error {
				<-ctx.Done()
				close(ended)
				return ctx.Err()
			})
			p.Go("bad", c.fail)
			require.ErrorContains(t, p.Serve(t.Context()), c.says)
			<-ended
			require.Equal(t, []string{"orders ready", "orders not ready"}, w.ready)
		})
	}
}

func TestWhatTheWorkWroteLastIsStillTold(t *testing.T) {
	w := newWorld(t)
	stop := w.start(t, "inventory", func(p *service.Platform) {
		coll, err := outbox.Open[record](t.Context(), p.Outbox, docstore.Spec{Name: "certificates"})
		require.NoError(t, err)
		p.Go("last words", func(ctx context.Context) error {
			<-ctx.Done()
			doc := docstore.Doc[record]{Meta: docstore.Meta{ID: "crt_1", Team: "default"}}
			return coll.Insert(context.WithoutCancel(ctx), &doc, outbox.Tell(&certificatev1.Deleted{CertificateId: "crt_1"}))
		})
	})
	require.NoError(t, stop())
	b, err := bus.New(t.Context(), bus.Config{Conn: w.nats.Conn(), Source: "test"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Deadline)
	defer cancel()
	heard := errors.New("heard")
	require.ErrorIs(t, b.Tail(ctx, bus.TailOptions{}, func(e bus.Event) error {
		require.Equal(t, "crt_1", e.Subject)
		return heard
	}), heard)
}

// noPeers is a network without addresses.
type noPeers struct{ service.InProcess }

func (noPeers) Conn(string, string, rpc.ClientOptions) (*grpc.ClientConn, error) {
	return nil, errs.New(errs.Invalid, "CONFIG_INVALID", "no address")
}

func TestPlatform(t *testing.T) {
	w := newWorld(t)
	t.Run("one that cannot be made closes what was opened", func(t *testing.T) {
		pr := *w.Process
		var opened docstore.Store
		ctx, cancel := context.WithCancel(t.Context())
		pr.NATS = w.nats.Conn()
		pr.NATS.Close()
		cancel()
		pr.OpenStore = func(_ context.Context, name string) (s docstore.Store, err error) {
			opened, err = w.OpenStore(t.Context(), name)
			return opened, err
		}
		p, closeAll, err := pr.Platform(ctx, "dns")
		require.Error(t, err)
		require.Nil(t, p)
		closeAll()
		_, err = opened.Outbox(t.Context(), clock.Never, 1)
		require.Equal(t, errs.Unavailable, errs.KindOf(err), "the store is closed")
	})
	t.Run("one whose store cannot be opened says so", func(t *testing.T) {
		pr := *w.Process
		broken := errors.New("broken")
		pr.OpenStore = func(context.Context, string) (docstore.Store, error) { return nil, broken }
		_, closeAll, err := pr.Platform(t.Context(), "dns")
		require.ErrorIs(t, err, broken)
		closeAll()
	})
	t.Run("a sibling without address is unreachable, and nothing else", func(t *testing.T) {
		pr := *w.Process
		pr.Network = noPeers{service.NewInProcess()}
		p, closeAll, err := pr.Platform(t.Context(), "keys")
		require.NoError(t, err)
		defer closeAll()
		_, err = identityv1.NewIdentityServiceClient(p.Peer("identity")).Append(t.Context(), &identityv1.AppendRequest{})
		require.ErrorContains(t, err, "no address")
	})
	t.Run("peers are shared, and closed", func(t *testing.T) {
		p, closeAll, err := w.Platform(t.Context(), "renewals")
		require.NoError(t, err)
		conns := make([]grpc.ClientConnInterface, 10)
		var wg sync.WaitGroup
		for i := range conns {
			wg.Go(func() { conns[i] = p.Peer("orders") })
		}
		wg.Wait()
		for _, c := range conns {
			require.Same(t, conns[0], c)
		}
		closeAll()
		closeAll()
		err = conns[0].Invoke(t.Context(), "/x/Y", &identityv1.AppendRequest{}, &identityv1.AppendResponse{})
		require.Error(t, err)
		_ = p.Peer("late") // made after the end: closed at once, as goleak sees
	})
}

func TestRemote(t *testing.T) {
	n := &service.Remote{Listen: "127.0.0.1:0", Address: map[string]string{"orders": "127.0.0.1:1"}}
	_, err := n.Conn("dns", "keys", rpc.ClientOptions{})
	require.ErrorContains(t, err, "peers.keys")
	conn, err := n.Conn("dns", "orders", rpc.ClientOptions{})
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- n.Serve(ctx, "dns", rpc.NewServer(n.ServerOptions(rpc.ServerOptions{Logger: testkit.Logger(t)})))
	}()
	cancel()
	require.NoError(t, <-done)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	n.Listen = taken.Addr().String()
	require.ErrorContains(t, n.Serve(t.Context(), "dns", rpc.NewServer(rpc.ServerOptions{Logger: testkit.Logger(t)})), n.Listen)
}
