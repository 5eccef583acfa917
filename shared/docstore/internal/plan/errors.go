package plan

import (
	"context"
	"errors"

	"github.com/certwright/certwright/shared/errs"
)

// The errors that every adapter answers alike.

// NotFound says that there is no such document.
func NotFound(collection, id string) error {
	return errs.New(errs.NotFound, "DOCUMENT_NOT_FOUND", "no document %q in collection %q", id, collection)
}

// DuplicateID says that the _id is taken.
func DuplicateID(collection, id string) error {
	return errs.New(errs.AlreadyExists, "DUPLICATE_ID", "document %q is in collection %q already", id, collection)
}

// DuplicateKey says that another document has the same values in the unique index.
func DuplicateKey(collection, index string) error {
	return errs.New(errs.AlreadyExists, "DUPLICATE_KEY", "collection %q: another document has the same %s", collection, index).
		WithMeta("index", index)
}

// Moved says that the document's revision is not the guard.
func Moved(collection, id string, guard int64) error {
	return errs.New(errs.Conflict, "REVISION_CONFLICT", "document %q in collection %q is not at revision %d any more", id,
		collection, guard)
}

// OutboxPending says that a document with entries in its outbox cannot be removed.
func OutboxPending(collection, id string) error {
	return errs.New(errs.Conflict, "OUTBOX_PENDING", "document %q in collection %q still has facts to tell", id, collection)
}

// UnknownCollection says that Ensure was not called.
func UnknownCollection(collection string) error {
	return errs.New(errs.Invalid, "UNKNOWN_COLLECTION", "collection %q was not declared", collection)
}

// IndexChanged says that an index of this name exists with other properties.
func IndexChanged(collection, index string) error {
	return errs.New(errs.Precondition, "INDEX_CHANGED",
		"collection %q: index %q exists with other properties; indexes are never altered, declare another", collection, index)
}

// Closed says that the store was closed.
func Closed() error { return errs.New(errs.Unavailable, "STORE_CLOSED", "the store is closed") }

// Ctx classifies the end of a context; cause is what the storage said about it.
func Ctx(ctx context.Context, cause error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errs.New(errs.Timeout, "", "the store did not answer in time: %w", cause)
	}
	return errs.New(errs.Canceled, "", "the call was given up: %w", cause)
}

// CheckUpdate refuses an update whose document does not carry a newer revision than its guard.
func CheckUpdate(d *Doc, guard int64) error {
	if d.Revision <= guard {
		return errs.New(errs.Invalid, "BAD_DOCUMENT", "an update of revision %d must carry a newer one, not %d", guard, d.Revision)
	}
	return nil
}
