// Package heal keeps projections whole when the bus lost something: it reads what changed at the owner since a cursor, every few minutes, and
// whenever the bus had to make its stream anew. It costs what changed, not what exists.
package heal

import (
	"cmp"
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

// Changes serves a ListChanges call over a collection: the documents changed since the cursor, by (changed_at, _id). An empty cursor reads
// everything. restarted says that the cursor is void (garbage, of another epoch of the store, or older than VoidAfter): what follows, from this page
// on until more is false, is everything, and what is not in it does not exist any more. The documents changed in the last Overlap come each time.
func Changes[T any](ctx context.Context, c *outbox.Collection[T], epoch, cursor string, limit int) (docs []docstore.Doc[T], next string, more, restarted bool, err error) {
	if limit <= 0 || limit > 1000 {
		limit = 500
	}
	now := c.Clock().Now()
	from, ok := decode(cursor, epoch)
	if cursor != "" && (!ok || now.Sub(from.issued) > VoidAfter) {
		from, restarted = position{}, true
	}
	found, err := find(ctx, c, from, limit)
	if err != nil && from.page != "" && errs.KindOf(err) == errs.Invalid { // a page of another version of the store
		from, restarted = position{}, true
		found, err = find(ctx, c, from, limit)
	}
	if err != nil {
		return nil, "", false, false, err
	}
	from.issued, from.page = now, found.Next
	if more = found.Next != ""; !more {
		// Everything that changed before now was seen, but for what became visible late.
		from.at = now.Add(-Overlap)
	}
	return found.Docs, encode(epoch, from), more, restarted, nil
}

func find[T any](ctx context.Context, c *outbox.Collection[T], from position, limit int) (docstore.Page[T], error) {
	return c.Find(ctx, docstore.Query{
		Where: []docstore.Cond{{Field: "changed_at", Op: docstore.Gte, Value: from.at}}, Limit: limit, After: from.page,
	})
}

// position is what a cursor says.
type position struct {
	at     time.Time // where the reading begins
	issued time.Time // when the cursor was given out
	page   string    // the store's cursor inside the reading; empty between two readings
}

func encode(epoch string, p position) string {
	return base64.RawURLEncoding.EncodeToString([]byte(epoch + "|" + p.at.UTC().Format(time.RFC3339Nano) + "|" + p.issued.UTC().Format(time.RFC3339Nano) + "|" + p.page))
}

func decode(cursor, epoch string) (p position, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return position{}, false
	}
	parts := strings.SplitN(string(raw), "|", 4)
	if len(parts) != 4 || parts[0] != epoch {
		return position{}, false
	}
	if p.at, err = time.Parse(time.RFC3339Nano, parts[1]); err != nil {
		return position{}, false
	}
	if p.issued, err = time.Parse(time.RFC3339Nano, parts[2]); err != nil {
		return position{}, false
	}
	p.page = parts[3]
	return p, true
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

// firstPause is how long a reader waits after an error; it doubles up to Every.
const firstPause = 2 * time.Second

// Run reads until ctx ends. The cursor lives in memory: a start reads everything once, in pages. After an error it goes on from the last page that was
// read.
func (r *Reader) Run(ctx context.Context) error {
	every := cmp.Or(r.Every, 3*time.Minute)
	cursor, failures := "", 0
	for ctx.Err() == nil {
		page, err := r.Read(ctx, cursor)
		if err == nil && page.More && page.Next == cursor {
			err = errs.New(errs.Internal, "", "the owner's cursor does not move on")
		}
		wait := every
		switch {
		case err != nil:
			wait = min(firstPause<<min(failures, 10), max(every, firstPause))
			failures++
			if ctx.Err() == nil && (errs.KindOf(err) != errs.Unavailable || failures%10 == 0) {
				r.Logger.WarnContext(ctx, "changes cannot be read; they are read later", "reader", r.Name, "error", err, "failures", failures)
			}
		default:
			cursor, failures = page.Next, 0
			if page.More {
				continue
			}
		}
		r.pause(ctx, wait, err == nil)
	}
	return nil
}

// pause waits, and at most until poked when that is allowed.
func (r *Reader) pause(ctx context.Context, wait time.Duration, pokes bool) {
	done, stop := r.Clock.After(wait)
	defer stop()
	now := r.Now
	if !pokes {
		now = nil // it stays in the channel
	}
	select {
	case <-ctx.Done():
	case <-done:
	case <-now:
	}
}
