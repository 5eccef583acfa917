package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/certwright/certwright/shared/docstore"
)

// Call is a mutating call that has to be in the audit trail. The first write made under it carries the entry.
type Call struct {
	Actor   string // principal, e.g. "token:tok_…"
	Method  string // full gRPC method
	TraceID string
	written atomic.Bool
}

// AuditRecord is the content of an audit entry (docstore.Entry of kind EntryAudit), JSON.
type AuditRecord struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	Method  string    `json:"method"`
	Subject string    `json:"subject"`
	Team    string    `json:"team"`
	TraceID string    `json:"traceId,omitempty"`
}

type callKey struct{}

// WithCall marks ctx as a mutating call of actor. package authz calls it in its interceptor.
func WithCall(ctx context.Context, actor, method string) context.Context {
	c := &Call{Actor: actor, Method: method}
	if s := trace.SpanContextFromContext(ctx); s.HasTraceID() {
		c.TraceID = s.TraceID().String()
	}
	return context.WithValue(ctx, callKey{}, c)
}

// WithoutCall ends the marking, for writes that are a consequence and not the call's own.
func WithoutCall(ctx context.Context) context.Context {
	return context.WithValue(ctx, callKey{}, (*Call)(nil))
}

func callOf(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

func (c *Call) entry(subject, team, epoch string, revision int64, now time.Time) docstore.Entry {
	rec := AuditRecord{
		ID: fmt.Sprintf("%s-%s-%d-audit", subject, epoch, revision), Time: now, Actor: c.Actor, Method: c.Method,
		Subject: subject, Team: team, TraceID: c.TraceID,
	}
	data, err := json.Marshal(rec)
	if err != nil {
		panic(err) // a struct of strings and a time always encodes
	}
	return docstore.Entry{ID: rec.ID, MsgID: rec.ID, Kind: docstore.EntryAudit, Headers: map[string]string{}, Data: data, At: now}
}

// Records decodes audit entries.
func Records(entries []docstore.Entry) ([]AuditRecord, error) {
	out := make([]AuditRecord, len(entries))
	for i, e := range entries {
		if err := json.Unmarshal(e.Data, &out[i]); err != nil {
			return nil, fmt.Errorf("audit entry %s: %w", e.ID, err)
		}
	}
	return out, nil
}
