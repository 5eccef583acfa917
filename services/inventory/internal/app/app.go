package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
)

// Certificate is a stored certificate.
type Certificate = docstore.Doc[domain.Certificate]

// Version is a stored version.
type Version = docstore.Doc[domain.Version]

// keptAnswers is how many answers to issued orders a certificate keeps: orders that may still ask are among the last.
const keptAnswers = 3

// Config of the use cases.
type Config struct {
	// RevokeWait is for how long a revocation waits for its replacement to be served.
	RevokeWait time.Duration
	// TombstoneKeep is how long a tombstone stays; longer than a cursor of ListChanges is good.
	TombstoneKeep time.Duration
}

// App is the use cases. It is safe for concurrent use.
type App struct {
	Certs    *outbox.Collection[domain.Certificate]
	Versions *outbox.Collection[domain.Version]
	Requests *once.Requests
	Issuers  Issuers
	Bindings Bindings
	Clock    clock.Clock
	Logger   *slog.Logger
	Epoch    string
	Config   Config
}

// Open opens the collections and makes the use cases. It waits for nothing but the store.
func Open(ctx context.Context, o *outbox.Outbox, issuers Issuers, bindings Bindings, logger *slog.Logger, cfg Config) (*App, error) {
	certs, err := outbox.Open[domain.Certificate](ctx, o, docstore.Spec{Name: "certificates", Indexes: []docstore.Index{
		{Fields: []string{"unique_key"}, Unique: true},
		{Fields: []string{"tags"}, Array: "tags"},
		{Fields: []string{"tags", "not_after"}, Array: "tags"},
		{Fields: []string{"not_after"}},
		{Fields: []string{"current_revoked"}},
		{Fields: []string{"deleted_at"}},
	}})
	if err != nil {
		return nil, err
	}
	versions, err := outbox.Open[domain.Version](ctx, o, docstore.Spec{Name: "versions", Indexes: []docstore.Index{
		{Fields: []string{"certificate_id"}},
	}})
	if err != nil {
		return nil, err
	}
	requests, err := once.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &App{
		Certs: certs, Versions: versions, Requests: requests, Issuers: issuers, Bindings: bindings, Clock: o.Clock(), Logger: logger,
		Epoch: o.Epoch(), Config: cfg,
	}, nil
}

// moment is what the domain is given; the order's id is a new one, used only if an intent is opened.
func (a *App) moment(ctx context.Context, certificate string) domain.Moment {
	now := a.Clock.Now()
	return domain.Moment{ID: certificate, Now: now, Order: id.New("ord", now), Trace: traceparent(ctx)}
}

// change loads the certificate, lets decide change it, and stores it with the facts; on a conflict it starts over. Nothing is written when decide
// changed nothing and no answer was awaited. NotFound when there is none.
func (a *App) change(ctx context.Context, m domain.Moment, decide func(doc *Certificate) (domain.Outcome, error)) (Certificate, error) {
	return a.Certs.Change(ctx, m.ID, func(doc *Certificate) ([]outbox.Fact, error) {
		out, err := decide(doc)
		if err != nil {
			return nil, err
		}
		facts, changed := settle(doc, out)
		if !changed {
			return nil, outbox.ErrUnchanged
		}
		return facts, nil
	})
}

// settle brings what the domain caused into the stored document: awaited answers, facts, indexes and the worker's moment.
func settle(doc *Certificate, out domain.Outcome) (facts []outbox.Fact, changed bool) {
	changed = out.Changed
	for _, key := range out.Answered {
		changed = outbox.Answered(&doc.Meta, key) || changed
	}
	if !changed {
		return nil, false
	}
	if len(out.Forget) > 0 {
		outbox.Forget(&doc.Meta, func(key string) bool {
			return slices.ContainsFunc(out.Forget, func(f string) bool {
				return key == f || strings.HasSuffix(f, "/") && strings.HasPrefix(key, f)
			})
		})
	}
	for _, f := range out.Facts {
		switch {
		case f.Await:
			facts = append(facts, outbox.Await(f.Key, f.Message))
		case f.Key != "":
			facts = append(facts, outbox.Keep(f.Key, f.Message))
		default:
			facts = append(facts, outbox.Tell(f.Message))
		}
	}
	trimAnswers(doc, out)
	doc.Tombstone = doc.Body.Deleted()
	doc.Body.Reindex(doc.ID, doc.Team, uniqueKey(doc.Body.Spec))
	doc.WorkAt = doc.Body.WorkAt()
	if t := doc.Body.Intent.Trace; t != "" {
		doc.Trace = t
	}
	return facts, true
}

// trimAnswers keeps the last few answers to issued orders, the new one included.
func trimAnswers(doc *Certificate, out domain.Outcome) {
	prefix := domain.VersionKey("")
	if !slices.ContainsFunc(out.Facts, func(f domain.Fact) bool { return strings.HasPrefix(f.Key, prefix) }) {
		return
	}
	surplus := -keptAnswers + 1
	for _, k := range doc.Kept {
		if strings.HasPrefix(k.Key, prefix) {
			surplus++
		}
	}
	outbox.Forget(&doc.Meta, func(key string) bool {
		if surplus <= 0 || !strings.HasPrefix(key, prefix) {
			return false
		}
		surplus--
		return true
	})
}

// visible loads a certificate that the caller may see, tombstones included. NotFound else.
func (a *App) visible(ctx context.Context, certificate string) (Certificate, error) {
	doc, err := a.Certs.Get(ctx, certificate)
	if isNotFound(err) {
		return doc, errs.New(errs.NotFound, "", "certificate %s does not exist", certificate)
	}
	if err != nil {
		return doc, err
	}
	return doc, authz.RequireTeam(ctx, doc.Team, "certificate "+certificate)
}

func isNotFound(err error) bool { return errs.KindOf(err) == errs.NotFound }

func isExists(err error) bool { return errs.KindOf(err) == errs.AlreadyExists }

// errMoved says that the document is not the one that was judged: judge again.
var errMoved = errors.New("the certificate changed meanwhile")

func traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}
