// Package once makes a creating call safe to repeat: the same requestId with the same body answers the first result, with another
// body it is refused.
package once

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// Keep is how long a request is remembered.
const Keep = 7 * 24 * time.Hour

type request struct {
	BodyHash string `bson:"body_hash"`
	Result   string `bson:"result"`
}

// Requests remembers the requests of one service.
type Requests struct {
	coll *outbox.Collection[request]
}

// Open opens the collection "requests" of the service's store.
func Open(ctx context.Context, o *outbox.Outbox) (*Requests, error) {
	coll, err := outbox.Open[request](ctx, o, docstore.Spec{Name: "requests"})
	if err != nil {
		return nil, err
	}
	return &Requests{coll: coll}, nil
}

// ID returns the identifier that the thing to be created must have: a new one of kind prefix, or the first one when the principal repeats
// the request. An empty requestID is never a repeat. Invalid when it is longer than 64 characters; AlreadyExists/REQUEST_ID_REUSED when the body differs.
func (r *Requests) ID(ctx context.Context, principal, method, requestID, prefix string, body proto.Message) (string, error) {
	now := r.coll.Clock().Now()
	if requestID == "" {
		return id.New(prefix, now), nil
	}
	if len(requestID) > 64 {
		return "", errs.New(errs.Invalid, "BAD_REQUEST_ID", "requestId has %d characters; at most 64 are allowed", len(requestID))
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(body)
	if err != nil {
		return "", err
	}
	doc := docstore.Doc[request]{
		Meta: docstore.Meta{ID: hash([]byte(principal + "\x00" + method + "\x00" + requestID)), Team: "default", WorkAt: now.Add(Keep)},
		Body: request{BodyHash: hash(encoded), Result: id.New(prefix, now)},
	}
	// The audit entry belongs to the thing created, not to this note.
	ctx = outbox.WithoutCall(ctx)
	for {
		attempt := doc
		err = r.coll.Insert(ctx, &attempt)
		if err == nil {
			return doc.Body.Result, nil
		}
		if errs.KindOf(err) != errs.AlreadyExists {
			return "", err
		}
		first, err := r.coll.Get(ctx, doc.ID)
		switch {
		case errs.KindOf(err) == errs.NotFound: // too old, and swept this moment
			continue
		case err != nil:
			return "", err
		case first.Body.BodyHash != doc.Body.BodyHash:
			return "", errs.New(errs.AlreadyExists, "REQUEST_ID_REUSED",
				"requestId %q was used for another body, which made %s; use a new requestId for a new request", requestID, first.Body.Result).
				WithMeta("first", first.Body.Result)
		}
		return first.Body.Result, nil
	}
}

// Sweep removes what is older than Keep. A service does it every so often.
func (r *Requests) Sweep(ctx context.Context) error {
	return r.coll.RemoveAll(ctx, docstore.Cond{Field: "due_at", Op: docstore.Lte, Value: r.coll.Clock().Now()})
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
