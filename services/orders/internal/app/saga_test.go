package app_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	chalev "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	orderev "github.com/certwright/certwright/api/certwright/events/order/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/services/orders/internal/transport/consumer"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const issuerID = "iss_1"

// dice is chance that many goroutines share.
type dice struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rnd.IntN(n)
}

// trouble decides which calls go wrong. It counts what it did, and does nothing after its budget is spent.
type trouble struct {
	dice   *dice
	one    int // of so many calls goes wrong; 0: none
	budget atomic.Int64
	done   atomic.Int64
}

func (f *trouble) strikes() bool {
	if f.one == 0 || f.dice.n(f.one) != 0 || f.budget.Add(-1) < 0 {
		return false
	}
	f.done.Add(1)
	return true
}

// authority is a CA after RFC 8555 section 7.1.6 that issues real certificates.
type authority struct {
	faults *trouble
	clock  clock.Clock
	key    *ecdsa.PrivateKey
	root   *x509.Certificate

	mu        sync.Mutex
	orders    []*caOrder
	byURL     map[string]*caOrder
	registers int
	account   int // number of the account that is valid; it may forget it
	contacts  []string
	// accountKey is the thumbprint of the account's key.
	accountKey string
	keyChanges int
	changed    func(err error) error // what becomes of the answer to a key change
	ended      bool                  // the account is deactivated
	foreign    bool                  // it takes revocations from another account only
	byKey      int                   // revocations with the certificate's own key
	serial     int64
	forgets    bool                                          // it has every name proven anew
	wrong      string                                        // what was done to it that never may be
	refuses    func(spec domain.Spec, replaces string) error // newOrder; may be nil
}

type caOrder struct {
	url, status string
	names       []string
	replaces    string
	authz       []string // states
	polls       int      // until it goes on
	finalized   int
	chain       [][]byte
	problem     *domain.Problem
	at          time.Time // when newOrder came
}

func newAuthority(clk clock.Clock, faults *trouble) *authority {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: clk.Now().Add(-time.Hour), NotAfter: clk.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1},
	}
	der, _ := x509.CreateCertificate(cryptorand.Reader, root, root, key.Public(), key)
	root, _ = x509.ParseCertificate(der)
	return &authority{faults: faults, clock: clk, key: key, root: root, byURL: map[string]*caOrder{}, serial: 1}
}

func (c *authority) never(format string, args ...any) { c.wrong = fmt.Sprintf(format, args...) }

// call does f, or not, and answers, or not.
func (c *authority) call(ctx context.Context, f func() error) error {
	lost := &domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_TIMEOUT", Detail: "no answer", Retrying: true}}
	if ctx.Err() != nil {
		return lost
	}
	if c.faults.strikes() {
		switch c.faults.dice.n(3) {
		case 0:
			return &domain.Failure{Problem: domain.Problem{Reason: "RATE_LIMITED", Detail: "slowly", Retrying: true}, RetryAfter: time.Minute}
		case 1: // 5xx, nothing was done
			return &domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Detail: "oops", Type: "urn:ietf:params:acme:error:serverInternal", Retrying: true}}
		default:
			c.mu.Lock()
			defer c.mu.Unlock()
			_ = f()
			return lost
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return f()
}

func refused(kind, detail string) error {
	return &domain.Failure{Problem: domain.Problem{Reason: "CA_REFUSED", Detail: detail, Type: "urn:ietf:params:acme:error:" + kind}}
}

func (c *authority) known(a acme.Account) error {
	if c.ended {
		return refused("unauthorized", "the account is deactivated")
	}
	if c.accountKey != a.Thumbprint {
		return refused("malformed", "the signature is not the account's")
	}
	if a.URL != fmt.Sprintf("https://ca/acct/%d", c.account) {
		return &domain.Failure{Gone: true, AccountGone: true, Problem: domain.Problem{Reason: "ACCOUNT_UNKNOWN", Detail: "who?", Type: "urn:ietf:params:acme:error:accountDoesNotExist"}}
	}
	return nil
}

func (c *authority) Directory(context.Context, domain.Issuer) (acme.Directory, error) {
	return acme.Directory{}, nil
}

func (c *authority) Register(ctx context.Context, a acme.Account) (u string, err error) {
	err = c.call(ctx, func() error {
		c.registers++
		if c.ended && c.accountKey != a.Thumbprint {
			c.ended, c.account = false, 0
		}
		if c.account == 0 {
			c.account = c.registers
		}
		c.accountKey, c.contacts = a.Thumbprint, a.Issuer.Contacts
		u = fmt.Sprintf("https://ca/acct/%d", c.account)
		return nil
	})
	return u, err
}

func (c *authority) NewOrder(ctx context.Context, a acme.Account, spec domain.Spec, _, replaces string) (out domain.CAOrder, err error) {
	err = c.call(ctx, func() error {
		if err := c.known(a); err != nil {
			return err
		}
		if c.refuses != nil {
			if err := c.refuses(spec, replaces); err != nil {
				return err
			}
		}
		switch replaces {
		case "conflict":
			c.faults.done.Add(1)
			return refused("alreadyReplaced", "replaced already")
		case "foreign":
			c.faults.done.Add(1)
			return refused("malformed", "not mine")
		case "unknown":
			c.faults.done.Add(1)
			return &domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Detail: "could not find an order", Type: "urn:ietf:params:acme:error:serverInternal", Retrying: true}}
		}
		o := &caOrder{url: fmt.Sprintf("https://ca/order/%d", len(c.orders)+1), status: "pending", names: spec.Names, replaces: replaces, at: c.clock.Now()}
		ready := true
		for range spec.Names {
			state := "pending"
			if !c.forgets && c.faults.dice.n(8) == 0 {
				state = "valid"
			}
			ready = ready && state == "valid"
			o.authz = append(o.authz, state)
		}
		if ready {
			o.status = "ready"
		}
		c.orders, c.byURL[o.url] = append(c.orders, o), o
		out = o.answer()
		return nil
	})
	return out, err
}

func (o *caOrder) answer() domain.CAOrder {
	out := domain.CAOrder{URL: o.url, Status: o.status, FinalizeURL: o.url + "/finalize", Problem: o.problem}
	for i := range o.names {
		out.AuthzURLs = append(out.AuthzURLs, fmt.Sprintf("%s/authz/%d", o.url, i))
	}
	if o.status == "valid" {
		out.CertificateURL = o.url + "/cert"
	}
	return out
}

func (c *authority) find(a acme.Account, u string) (o *caOrder, authz int, err error) {
	if err := c.known(a); err != nil {
		return nil, 0, err
	}
	base, rest, _ := strings.Cut(strings.TrimPrefix(u, "https://ca/order/"), "/")
	if o = c.byURL["https://ca/order/"+base]; o == nil {
		return nil, 0, &domain.Failure{Gone: true, Problem: domain.Problem{Reason: "CA_REFUSED", Detail: "no such order"}}
	}
	_, _ = fmt.Sscanf(rest, "authz/%d", &authz)
	return o, authz, nil
}

func (c *authority) Order(ctx context.Context, a acme.Account, u string) (out domain.CAOrder, err error) {
	err = c.call(ctx, func() error {
		o, _, err := c.find(a, u)
		if err != nil {
			return err
		}
		c.goOn(o)
		out = o.answer()
		return nil
	})
	return out, err
}

// goOn is what the CA does by itself between two looks.
func (c *authority) goOn(o *caOrder) {
	if o.polls--; o.polls > 0 {
		return
	}
	switch o.status {
	case "pending":
		for i, s := range o.authz {
			if s == "processing" {
				o.authz[i] = "valid"
			}
		}
		if !slices.ContainsFunc(o.authz, func(s string) bool { return s != "valid" }) {
			o.status = "ready"
		}
	case "processing":
		o.status = "valid"
	}
}

func (c *authority) Authorizations(ctx context.Context, a acme.Account, urls []string) (zs []domain.Authorization, err error) {
	err = c.call(ctx, func() error {
		for _, u := range urls {
			o, i, err := c.find(a, u)
			if err != nil {
				return err
			}
			z := domain.Authorization{
				URL: u, Identifier: o.names[i], State: domain.AuthzPending, ExpiresAt: c.clock.Now().Add(7 * 24 * time.Hour),
				Offered: []domain.Offer{{Type: "http-01", URL: u + "/http", Token: "t"}, {Type: "dns-01", URL: u + "/dns", Token: "t"}},
			}
			if o.authz[i] == "valid" {
				z.State = domain.AuthzValid
			}
			zs = append(zs, z)
		}
		return nil
	})
	return zs, err
}

func (c *authority) Respond(ctx context.Context, a acme.Account, urls []string) error {
	return c.call(ctx, func() error {
		var worst error
		for _, u := range urls {
			o, i, err := c.find(a, u)
			switch {
			case err != nil:
				return err
			case o.authz[i] != "pending":
				worst = refused("malformed", "the challenge is not pending")
			default:
				o.authz[i], o.polls = "processing", c.faults.dice.n(4)
			}
		}
		return worst
	})
}

func (c *authority) Finalize(ctx context.Context, a acme.Account, u, finalizeURL string, csr []byte) (out domain.CAOrder, err error) {
	err = c.call(ctx, func() error {
		o, _, err := c.find(a, u)
		if err != nil {
			return err
		}
		if finalizeURL != u+"/finalize" {
			c.never("finalize went to %s", finalizeURL)
		}
		if o.status != "ready" {
			return refused(map[bool]string{true: "orderNotReady", false: "malformed"}[c.faults.dice.n(2) == 0], "the order is "+o.status)
		}
		o.finalized++
		req, err := x509.ParseCertificateRequest(csr)
		if err != nil {
			return refused("badCSR", err.Error())
		}
		if c.faults.strikes() { // the CA's own trouble
			o.status, o.problem = "invalid", &domain.Problem{Reason: "CA_ERROR", Detail: "broken", Type: "urn:ietf:params:acme:error:serverInternal"}
			out = o.answer()
			return nil
		}
		c.serial++
		leaf := &x509.Certificate{SerialNumber: big.NewInt(c.serial), DNSNames: req.DNSNames, NotBefore: c.clock.Now().Add(-time.Minute), NotAfter: c.clock.Now().AddDate(0, 3, 0)}
		der, err := x509.CreateCertificate(cryptorand.Reader, leaf, c.root, req.PublicKey, c.key)
		if err != nil {
			return err
		}
		o.chain, o.status, o.polls = [][]byte{der}, "processing", c.faults.dice.n(4)
		if c.faults.dice.n(3) == 0 {
			o.status = "valid"
		}
		out = o.answer()
		return nil
	})
	return out, err
}

func (c *authority) Chains(ctx context.Context, a acme.Account, u string, _ bool) (chains [][][]byte, err error) {
	err = c.call(ctx, func() error {
		o, _, err := c.find(a, u)
		if err != nil {
			return err
		}
		chains = [][][]byte{o.chain}
		return nil
	})
	return chains, err
}

func (c *authority) Revoke(ctx context.Context, a acme.Account, _ []byte, _ uint) (already bool, err error) {
	return false, c.call(ctx, func() error {
		if c.foreign {
			return refused("unauthorized", "another account ordered it")
		}
		return c.known(a)
	})
}

func (c *authority) RevokeByKey(ctx context.Context, _ domain.Issuer, key acme.RemoteKey, _ []byte, _ uint) (already bool, err error) {
	if _, err := key(ctx, nil); err != nil {
		return false, err
	}
	return false, c.call(ctx, func() error { c.byKey++; return nil })
}

func (c *authority) Account(ctx context.Context, a acme.Account) (out acme.AccountState, err error) {
	err = c.call(ctx, func() error {
		out = acme.AccountState{Status: "valid", Contacts: c.contacts}
		return c.known(a)
	})
	return out, err
}

func (c *authority) UpdateContacts(ctx context.Context, a acme.Account) error {
	return c.call(ctx, func() error {
		if err := c.known(a); err != nil {
			return err
		}
		c.contacts = a.Issuer.Contacts
		return nil
	})
}

func (c *authority) RotateKey(ctx context.Context, a acme.Account, next crypto.Signer, askOnly bool) error {
	public, err := x509.MarshalPKIXPublicKey(next.Public())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(public)
	thumbprint, changed := hex.EncodeToString(sum[:]), false
	var f *domain.Failure
	if err := c.call(ctx, func() error { changed = c.accountKey == thumbprint; return nil }); errors.As(err, &f) {
		f.Unknown, f.Problem.Retrying = true, true // as the port wants it
		return err
	}
	if changed {
		return nil
	}
	err = c.call(ctx, func() error {
		if askOnly {
			return refused("none", "not changed")
		}
		if err := c.known(a); err != nil {
			return err
		}
		c.accountKey = thumbprint
		c.keyChanges++
		return nil
	})
	if c.changed != nil {
		return c.changed(err)
	}
	return err
}

func (c *authority) Deactivate(ctx context.Context, _ acme.Account) error {
	return c.call(ctx, func() error { c.ended = true; return nil })
}

func (c *authority) RenewalInfo(context.Context, domain.Issuer, string) (acme.RenewalInfo, error) {
	return acme.RenewalInfo{}, nil
}

// custodian is the keys service: one key an order.
type custodian struct {
	keysv1.KeysServiceClient
	faults *trouble
	mu     sync.Mutex
	keys   map[string]crypto.Signer
}

func (k *custodian) EnsureCSR(_ context.Context, r *keysv1.EnsureCSRRequest, _ ...grpc.CallOption) (*keysv1.EnsureCSRResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.keys[r.GetOrderId()]
	if key == nil {
		key, _ = ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
		k.keys[r.GetOrderId()] = key
	}
	if k.faults.strikes() {
		return nil, errs.New(errs.Unavailable, "", "keys is away")
	}
	csr, err := x509.CreateCertificateRequest(cryptorand.Reader, &x509.CertificateRequest{DNSNames: r.GetNames()}, key)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	sum := sha256.Sum256(spki)
	return &keysv1.EnsureCSRResponse{KeyId: "key_" + r.GetOrderId(), CsrDer: csr, SpkiSha256: hex.EncodeToString(sum[:])}, err
}

func (k *custodian) SignRevocation(_ context.Context, r *keysv1.SignRevocationRequest, _ ...grpc.CallOption) (*keysv1.SignRevocationResponse, error) {
	if r.GetKeyId() != "key_ord_1" {
		return nil, errs.New(errs.Precondition, "KEY_DESTROYED", "the key %s is destroyed", r.GetKeyId())
	}
	return &keysv1.SignRevocationResponse{Signature: []byte{1}, Algorithm: "ES256", Jwk: "{}"}, nil
}

// process is one life of the service.
type process struct {
	app    *app.App
	hears  bus.Consumer
	dead   atomic.Bool
	cancel context.CancelFunc
	wg     sync.WaitGroup
	store  *faulty.Store
}

// universe is everything around the service, and its present life.
type universe struct {
	t      require.TestingT
	clock  *clock.Fake
	dice   *dice
	faults *trouble
	memory docstore.Store
	bag    testkit.Recorder // the bus: what was published waits there to be delivered
	ca     *authority
	keys   *custodian
	sealer *seal.Sealer
	now    *process
	past   []*process
	busy   atomic.Int64 // steps in hand
	jumps  int64
	// rotations is how often the account's key is still to be changed on the way.
	rotations int
	heard     map[string]bool              // outcomes that inventory has
	places    map[string]*chalev.Presented // challenges in place, by authorization
	closed    map[string]bool
	asked     []*certev.Requested
	quiet     *slog.Logger
	lastWas   time.Time
}

func newUniverse(t testing.TB, rt require.TestingT, seed uint64, one int, budget int64) *universe {
	clk := clock.NewFake(t0)
	d := &dice{rnd: rand.New(rand.NewPCG(seed, 1))}
	f := &trouble{dice: d, one: one}
	f.budget.Store(budget)
	u := &universe{
		t: rt, clock: clk, dice: d, faults: f, memory: memory.New(clk), ca: newAuthority(clk, f),
		keys: &custodian{faults: f, keys: map[string]crypto.Signer{}}, heard: map[string]bool{}, places: map[string]*chalev.Presented{}, closed: map[string]bool{},
		quiet: slog.New(slog.DiscardHandler), lastWas: t0,
	}
	var err error
	u.sealer, err = seal.OpenKEK(t.Context(), u.memory, filepath.Join(t.TempDir(), "kek"), "orders")
	require.NoError(rt, err)
	u.start()
	err = u.now.app.Issuers.Insert(context.Background(), &docstore.Doc[domain.Issuer]{
		Meta: docstore.Meta{ID: issuerID, Team: "default"}, Body: domain.Issuer{DisplayName: "lab", UniqueName: "default/lab", Kind: "acme", DirectoryURL: "https://ca/dir"},
	})
	for errs.KindOf(err) == errs.Unavailable && err != nil {
		err = u.now.app.Issuers.Insert(context.Background(), &docstore.Doc[domain.Issuer]{
			Meta: docstore.Meta{ID: issuerID, Team: "default"}, Body: domain.Issuer{DisplayName: "lab", UniqueName: "default/lab", Kind: "acme", DirectoryURL: "https://ca/dir"},
		})
		if errs.KindOf(err) == errs.AlreadyExists {
			err = nil
		}
	}
	require.NoError(rt, err)
	return u
}

// start begins a life of the service over what is stored.
func (u *universe) start() {
	p := &process{}
	fault := func(op faulty.Op, _ string) error {
		if p.dead.Load() || (op != faulty.Ensure && u.faults.strikes()) {
			return errs.New(errs.Unavailable, "", "the store is away")
		}
		return nil
	}
	p.store = faulty.New(u.memory, faulty.Faults{Before: fault, After: fault})
	out := outbox.New(outbox.Config{Store: p.store, Bus: &u.bag, Source: "orders", Clock: u.clock, Logger: u.quiet, Lease: 20 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	orders, issuers, accounts, revocations := app.Specs()
	requests, err := once.Open(ctx, out)
	require.NoError(u.t, err)
	s := app.Stores{
		Orders: testkit.Open[domain.Order](u.t, out, orders), Issuers: testkit.Open[domain.Issuer](u.t, out, issuers),
		Accounts: testkit.Open[app.Account](u.t, out, accounts), Revocations: testkit.Open[domain.Revocation](u.t, out, revocations), Requests: requests,
		Budgets: testkit.Open[domain.Bucket](u.t, out, app.BudgetSpec()),
	}
	p.app = &app.App{Stores: s, CA: u.ca, Keys: u.keys, Sealer: u.sealer, Clock: u.clock, Logger: u.quiet, Epoch: u.memory.Epoch()}
	p.hears = consumer.New(p.app)
	w := worker.New(worker.Config[domain.Order]{Name: "orders", Coll: s.Orders, Clock: u.clock, Logger: u.quiet, Step: func(ctx context.Context, d docstore.Doc[domain.Order]) (worker.Result[domain.Order], error) {
		u.busy.Add(1)
		defer u.busy.Add(-1)
		return p.app.StepOrder(ctx, d)
	}})
	rw := worker.New(worker.Config[domain.Revocation]{Name: "revocations", Coll: s.Revocations, Clock: u.clock, Logger: u.quiet, Step: p.app.StepRevocation})
	p.wg.Go(func() { _ = w.Run(ctx) })
	aw := worker.New(worker.Config[app.Account]{Name: "accounts", Coll: s.Accounts, Clock: u.clock, Logger: u.quiet, Step: p.app.StepAccount})
	p.wg.Go(func() { _ = rw.Run(ctx) })
	p.wg.Go(func() { _ = aw.Run(ctx) })
	p.wg.Go(func() { _ = out.Run(ctx) })
	u.now = p
}

// crash ends the present life between two instructions: nothing that it still does is stored. Another begins.
func (u *universe) crash() {
	u.faults.done.Add(u.busy.Load() + 1)
	u.now.dead.Store(true)
	u.now.cancel()
	u.past = append(u.past, u.now)
	u.start()
}

// end waits until every life has ended, which takes the clock to move on.
func (u *universe) end() {
	u.now.cancel()
	over := make(chan struct{})
	go func() {
		for _, p := range append(u.past, u.now) {
			p.wg.Wait()
		}
		close(over)
	}()
	for {
		select {
		case <-over:
			return
		default:
			u.clock.Advance(time.Second)
			runtime.Gosched()
		}
	}
}

func (u *universe) hear(m proto.Message, subject string) {
	times := 1
	if u.dice.n(5) == 0 {
		times = 2
	}
	for range times {
		e := testkit.Event(u.t, m, bus.Event{ID: fmt.Sprint(u.dice.n(1 << 30)), Subject: subject, Time: u.clock.Now(), Team: "default"})
		for tries := 0; ; tries++ { // the bus delivers again what was not acked
			err := u.now.hears.Handle(context.Background(), e)
			if err == nil {
				break
			}
			require.True(u.t, errs.Transient(err), "%s: %v", e.Type, err)
			require.Less(u.t, tries, 100, "%s: %v", e.Type, err)
		}
	}
}

// deliver brings what was told to inventory and challenges as they are modelled here, some of it never, twice or late, and their answers back.
func (u *universe) deliver() {
	told := testkit.Events(u.t, u.bag.Take())
	u.dice.mu.Lock()
	u.dice.rnd.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
	u.dice.mu.Unlock()
	for _, e := range told {
		if u.dice.n(8) == 0 && u.faults.one > 0 {
			continue // lost
		}
		switch m := testkit.Message(u.t, e).(type) {
		case *orderev.AuthorizationRequired:
			key := fmt.Sprint(m.GetOrderId(), m.GetAttempt(), m.GetAuthorization())
			if u.closed[key] {
				continue
			}
			if u.dice.n(6) == 0 {
				u.hear(&chalev.Failed{OrderId: m.GetOrderId(), Attempt: m.GetAttempt(), Authorization: m.GetAuthorization(), Problem: &typesv1.Problem{Reason: "CHALLENGE_NOT_VISIBLE", Retrying: true}}, "chl")
			}
			u.places[key] = &chalev.Presented{ChallengeId: "chl_" + key, OrderId: m.GetOrderId(), Attempt: m.GetAttempt(), Authorization: m.GetAuthorization(), Type: "http-01"}
			u.hear(u.places[key], "chl")
		case *orderev.AuthorizationClosed:
			key := fmt.Sprint(m.GetOrderId(), m.GetAttempt(), m.GetAuthorization())
			u.closed[key] = true
			delete(u.places, key)
		case *orderev.Issued:
			u.over(m.GetOrderId())
			u.hear(&certev.VersionAdded{CertificateId: m.GetCertificateId(), Version: &typesv1.VersionFacts{OrderId: m.GetOrderId(), VersionId: "ver_" + m.GetOrderId()}}, m.GetCertificateId())
		case *orderev.Failed:
			u.over(m.GetOrderId())
		case *orderev.Cancelled:
			u.over(m.GetOrderId())
		}
	}
}

func (u *universe) over(order string) {
	u.heard[order] = true
	for k, p := range u.places {
		if p.GetOrderId() == order {
			delete(u.places, k)
		}
	}
}

// again is what those who wait do from time to time: they ask again.
func (u *universe) again() {
	for _, r := range u.asked {
		if !u.heard[r.GetOrderId()] {
			u.hear(r, r.GetCertificateId())
		}
	}
	for _, p := range u.places {
		u.hear(p, p.GetChallengeId())
	}
}

func (u *universe) request(n int, names []string, replaces string) *certev.Requested {
	r := &certev.Requested{
		CertificateId: fmt.Sprintf("crt_%d", n), OrderId: fmt.Sprintf("ord_%d", n), IntentNumber: 1, SpecGeneration: 1, Cause: "created",
		Spec: &typesv1.CertificateSpec{Issuer: issuerID, Names: names, KeyAlgorithm: "ECDSA_P256", Challenge: &typesv1.ChallengeSpec{Type: "auto"}},
	}
	if replaces != "" {
		r.Replaces = &typesv1.VersionFacts{
			VersionId: "ver_old", IssuerId: issuerID, AriCertId: replaces, NotBefore: timestamppb.New(t0.AddDate(0, -2, 0)), NotAfter: timestamppb.New(t0.AddDate(0, 1, 0)),
		}
	}
	u.asked = append(u.asked, r)
	return r
}

// all returns every order as stored, past the faults.
func (u *universe) all() []docstore.Doc[domain.Order] {
	var out []docstore.Doc[domain.Order]
	page, err := u.memory.Find(context.Background(), "orders", docstore.Query{Limit: 1000})
	require.NoError(u.t, err)
	for _, raw := range page.Docs {
		d, err := docstore.Decode[domain.Order](raw)
		require.NoError(u.t, err)
		out = append(out, d)
	}
	return out
}

// settled reports whether every order asked for is over, nothing is awaited, and everybody was told. It checks what must hold at any time.
func (u *universe) settled() bool {
	docs := u.all()
	ok := len(docs) >= len(u.asked)
	for _, d := range docs {
		if !d.Body.State.Final() {
			require.True(u.t, d.WorkAt.Before(clock.Never), "order %s is %s and nothing is due", d.ID, d.Body.State)
			ok = false
		}
		ok = ok && u.heard[d.ID] && !slices.ContainsFunc(d.Kept, func(k docstore.Kept) bool { return k.Await })
	}
	return ok && len(u.places) == 0
}

// pass lets time go by: a little as long as somebody is at work, more when all wait.
func (u *universe) pass() {
	for range 30 {
		runtime.Gosched()
	}
	d := time.Duration(5+u.dice.n(200)) * time.Millisecond
	if u.busy.Load() == 0 && u.dice.n(4) == 0 {
		d = time.Duration(1+u.dice.n(40)) * time.Second
	} else if u.dice.n(300) == 0 { // a process that is stopped and goes on
		d = time.Minute
	}
	if u.busy.Load() > 0 && d > 2*time.Second {
		u.jumps += u.busy.Load()
	}
	u.clock.Advance(d)
}

// run lets the universe go on until it has settled, with crashes on the way.
func (u *universe) run(crashes int) {
	for i := 0; ; i++ {
		u.deliver()
		if u.settled() {
			return
		}
		if i%50 == 49 {
			u.again()
		}
		if u.rotations > 0 && u.dice.n(30) == 0 {
			if _, err := u.now.app.RotateKey(context.Background(), app.AccountID(issuerID)); err == nil {
				u.rotations--
				u.jumps += int64(10 * len(u.asked)) // answers of challenges are void, and orders begin anew
			}
		}
		if crashes > 0 && u.dice.n(40) == 0 {
			crashes--
			u.crash()
		}
		u.pass()
		if i > 20_000 {
			for _, d := range u.all() {
				if !d.Body.State.Final() || !u.heard[d.ID] {
					require.Fail(u.t, "an order does not end", "at %s: %+v kept %d", u.clock.Now(), d.Body, len(d.Kept))
				}
			}
			require.Fail(u.t, "somebody still waits", "%v", u.places)
		}
	}
}

func TestEveryIntentEndsWithOneCertificateWhateverGoesWrong(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		one := rapid.SampledFrom([]int{0, 6, 15, 40}).Draw(rt, "one call in so many goes wrong")
		crashes := rapid.IntRange(0, 6).Draw(rt, "crashes")
		intents := rapid.IntRange(1, 4).Draw(rt, "intents")
		u := newUniverse(t, rt, seed, one, 40)
		defer u.end()
		var allowed []domain.Limit
		if rapid.Bool().Draw(rt, "limited") {
			allowed = []domain.Limit{
				{Kind: domain.OrdersPerAccount, Capacity: 2, Period: 30 * time.Second}, {Kind: domain.PerRegisteredDomain, Capacity: 2, Period: 40 * time.Second},
				{Kind: domain.PerExactSet, Capacity: 1, Period: 20 * time.Second},
			}
			u.allow(allowed...)
		}
		u.rotations = rapid.IntRange(0, 2).Draw(rt, "key changes")
		unwanted := map[string]bool{}
		for n := range intents {
			names := []string{fmt.Sprintf("a%d.example.org", n), fmt.Sprintf("b%d.example.org", n), fmt.Sprintf("c%d.example.org", n)}
			r := u.request(n, names[:rapid.IntRange(1, 3).Draw(rt, "names")],
				rapid.SampledFrom([]string{"", "", "known", "conflict", "foreign", "unknown"}).Draw(rt, "replaces"))
			cancel := rapid.SampledFrom([]string{"", "", "", "before", "after"}).Draw(rt, "cancelled")
			m := &certev.SpecChanged{CertificateId: r.GetCertificateId(), OrderId: r.GetOrderId()}
			if cancel == "before" {
				u.hear(m, r.GetCertificateId())
			}
			u.hear(r, r.GetCertificateId())
			if cancel == "after" {
				u.pass()
				u.deliver()
				u.hear(m, r.GetCertificateId())
			}
			unwanted[r.GetOrderId()] = cancel != ""
		}
		u.run(crashes)

		wanted := 0
		for _, d := range u.all() {
			if d.Body.State == domain.Cancelled && unwanted[d.ID] {
				continue
			}
			wanted++
			require.Equal(rt, domain.Issued, d.Body.State, "order %s: %+v", d.ID, d.Body.Problem)
			require.Equal(rt, "ver_"+d.ID, d.Body.VersionID)
		}
		u.ca.mu.Lock()
		defer u.ca.mu.Unlock()
		require.Empty(rt, u.ca.wrong)
		certificates := 0
		for _, o := range u.ca.orders {
			require.LessOrEqual(rt, o.finalized, 1)
			if o.chain != nil {
				certificates++
			}
		}
		u.ca.oversteps(rt, allowed)
		require.Equal(rt, wanted, certificates, "certificates of the CA and orders that were not cancelled")
		require.LessOrEqual(rt, int64(len(u.ca.orders)), int64(intents)+u.faults.done.Load()+u.jumps, "newOrder is sent once, and once more for a fault")
		ends := map[string]string{} // outcomes by order
		for _, e := range testkit.Events(rt, u.bag.Entries()) {
			if slices.Contains([]string{"order.issued", "order.failed", "order.cancelled", "order.rejected"}, e.Type) {
				require.Contains(rt, []string{"", e.Type}, ends[e.Subject], "the outcome of %s changed", e.Subject)
				ends[e.Subject] = e.Type
			}
		}
		require.Len(rt, ends, intents)
	})
}
