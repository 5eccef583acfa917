package identity

import (
	"cmp"
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
)

const (
	maxAppend = 1000
	// appenders is how many entries are written at once; the store syncs them together.
	appenders = 32
)

// auditEntry says who did what to what. It is written once and never changed.
type auditEntry struct {
	At      time.Time `bson:"at"`
	Actor   string    `bson:"actor"`
	Method  string    `bson:"method"`
	Subject string    `bson:"subject"`
	Detail  string    `bson:"detail"`
	TraceID string    `bson:"trace_id"`
}

// Append implements the RPC. It answers when every entry is stored, those that were there already included.
func (s *server) Append(ctx context.Context, r *identityv1.AppendRequest) (*identityv1.AppendResponse, error) {
	if n := len(r.GetEntries()); n > maxAppend {
		return nil, errs.New(errs.Invalid, "TOO_MANY_ENTRIES", "%d audit entries given, at most %d are allowed in one call", n, maxAppend)
	}
	for i, e := range r.GetEntries() {
		if e.GetId() == "" || e.GetActor() == "" || e.GetMethod() == "" || e.GetTime().CheckValid() != nil {
			return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "an audit entry is not complete").WithField(field("entries", i), "id, time, actor and method are wanted")
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var writing sync.WaitGroup
	slots := make(chan struct{}, appenders)
	for _, e := range r.GetEntries() {
		slots <- struct{}{}
		writing.Go(func() {
			defer func() { <-slots }()
			if err := s.append(ctx, e); err != nil {
				cancel(err)
			}
		})
	}
	writing.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return &identityv1.AppendResponse{}, nil
}

func (s *server) append(ctx context.Context, e *identityv1.AuditEntry) error {
	doc := docstore.Doc[auditEntry]{
		Meta: docstore.Meta{ID: e.GetId(), Team: cmp.Or(e.GetTeam(), authz.DefaultTeam)},
		Body: auditEntry{At: clock.Normal(e.GetTime().AsTime()), Actor: e.GetActor(), Method: e.GetMethod(), Subject: e.GetSubject(), Detail: e.GetDetail(), TraceID: e.GetTraceId()},
	}
	err := s.audit.Insert(outbox.WithoutCall(ctx), &doc)
	if errs.KindOf(err) == errs.AlreadyExists {
		return nil
	}
	return err
}

// ListAudit implements the RPC: newest first unless orderBy is "time". Who belongs to one team sees its entries.
func (s *server) ListAudit(ctx context.Context, r *identityv1.ListAuditRequest) (*identityv1.ListAuditResponse, error) {
	caller, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	q, err := auditQuery(caller, r)
	if err != nil {
		return nil, err
	}
	page, err := s.audit.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	return &identityv1.ListAuditResponse{Entries: listing.Rows(page.Docs, entryOf), NextPageToken: page.Next}, nil
}

func entryOf(d docstore.Doc[auditEntry]) *identityv1.AuditEntry {
	return &identityv1.AuditEntry{
		Id: d.ID, Time: timestamppb.New(d.Body.At), Actor: d.Body.Actor, Method: d.Body.Method, Subject: d.Body.Subject, Team: d.Team,
		Detail: d.Body.Detail, TraceId: d.Body.TraceID,
	}
}

// auditQuery puts the narrowest term on an index, in the order of time; the others filter what it finds.
func auditQuery(caller authz.Principal, r *identityv1.ListAuditRequest) (docstore.Query, error) {
	size, err := listing.Size(r.GetPageSize())
	if err != nil {
		return docstore.Query{}, err
	}
	terms, err := listing.Filter(r.GetFilter(), "actor", "subject", "method")
	if err != nil {
		return docstore.Query{}, err
	}
	q := docstore.Query{Limit: size, After: r.GetPageToken(), Desc: true}
	switch r.GetOrderBy() {
	case "", "time desc":
	case "time", "time asc":
		q.Desc = false
	default:
		return q, errs.New(errs.Invalid, "BAD_ORDER", "orderBy is %q; allowed are \"time\" and \"time desc\"", r.GetOrderBy())
	}
	q = listing.By(q, listing.Term{"subject", terms["subject"]}, listing.Term{"actor", terms["actor"]}, listing.Term{"method", terms["method"]},
		listing.Term{"team", authz.Scope(caller)})
	q.Where = append(q.Where, docstore.Cond{Field: "at", Op: docstore.Lt, Value: clock.Never}) // all, in the order of time
	return q, nil
}
