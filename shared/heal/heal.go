// Package heal keeps projections whole when the bus lost something: it reads what changed at the owner since a cursor, every few minutes, and
// whenever the bus had to make its stream anew. It costs what changed, not what exists.
package heal

import (
	"context"
	"encoding/base64"
	"log/slog"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// Overlap is how far before its cursor a reader starts again: replicas' clocks differ, and writes of one moment become visible one by one.
const Overlap = 10 * time.Minute

// VoidAfter is the age at which a cursor is void: tombstones may be gone, so everything is read again.
const VoidAfter = 25 * 24 * time.Hour

// Changes serves a ListChanges call over a collection: the documents changed since the cursor, by (changed_at, _id).
func Changes[T any](ctx context.Context, c *outbox.Collection[T], epoch, cursor string, limit int) (docs []docstore.Doc[T], next string, more, restarted bool, err error) {
	at, page, ok := decode(cursor, epoch)
	now := c.Clock().Now()
	if cursor != "" && (!ok || now.Sub(at) > VoidAfter) {
		at, page, restarted = time.Time{}, "", true
	}
	if limit <= 0 || limit > 1000 {
		limit = 500
	}
	q := docstore.Query{Where: []docstore.Cond{{Field: "changed_at", Op: docstore.Gte, Value: at}}, Limit: limit, After: page}
	found, err := c.Find(ctx, q)
	if err != nil {
		return nil, "", false, false, err
	}
	last := at
	if n := len(found.Docs); n > 0 {
		last = found.Docs[n-1].ChangedAt
	}
	if found.Next != "" {
		return found.Docs, encode(epoch, at, found.Next), true, restarted, nil
	}
	if last.IsZero() {
		last = now
	}
	return found.Docs, encode(epoch, last.Add(-Overlap), ""), false, restarted, nil
}

func encode(epoch string, at time.Time, page string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(epoch + "|" + at.UTC().Format(time.RFC3339Nano) + "|" + page))
}

func decode(cursor, epoch string) (at time.Time, page string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return at, "", false
	}
	parts := strings.SplitN(string(raw), "|", 3)
	if len(parts) != 3 || parts[0] != epoch {
		return at, "", false
	}
	at, err = time.Parse(time.RFC3339Nano, parts[1])
	return at, parts[2], err == nil
}

// Page is one answer of an owner's ListChanges.
type Page struct {
	Next      string
	More      bool
	Restarted bool
}

// Reader reads one owner's changes.
type Reader struct {
	Name   string // for logs
	Clock  clock.Clock
	Logger *slog.Logger
	Every  time.Duration // default 3 min
	// Read asks the owner for what changed after the cursor, and applies it.
	Read func(ctx context.Context, cursor string) (Page, error)
	// Now makes the reader read at once when it is sent to; pass it to the bus's OnNewStream.
	Now chan struct{}
}

// Poke makes the reader read soon.
func (r *Reader) Poke() {
	select {
	case r.Now <- struct{}{}:
	default:
	}
}

// Run reads until ctx ends. The cursor lives in memory: a start reads everything once, in pages.
func (r *Reader) Run(ctx context.Context) error {
	if r.Every == 0 {
		r.Every = 3 * time.Minute
	}
	cursor := ""
	for ctx.Err() == nil {
		wait := r.Every
		for ctx.Err() == nil {
			page, err := r.Read(ctx, cursor)
			if err != nil {
				if ctx.Err() == nil && errs.KindOf(err) != errs.Unavailable {
					r.Logger.WarnContext(ctx, "changes cannot be read", "reader", r.Name, "error", err)
				}
				wait = min(wait, 2*time.Second)
				break
			}
			cursor = page.Next
			if !page.More {
				break
			}
		}
		done, stop := r.Clock.After(wait)
		select {
		case <-ctx.Done():
		case <-done:
		case <-r.Now:
		}
		stop()
	}
	return nil
}
