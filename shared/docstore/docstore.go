// Package docstore is the port to the document store: typed collections of aggregates, each one document, written
// whole under a revision guard together with the facts (outbox entries) that the write made true.
//
// Adapters: mongo (MongoDB 4.4 and later), sqlite (embedded), memory (simulation). All pass docstoretest.
// There are no transactions over several documents, on purpose.
package docstore

import (
	"context"
	"time"
)

// Meta is what every stored document has besides its body. Times are UTC in milliseconds.
type Meta struct {
	ID         string    `bson:"_id"`
	Revision   int64     `bson:"revision"` // 1 when inserted, +1 at each update
	Team       string    `bson:"team"`
	CreatedAt  time.Time `bson:"created_at"`
	ChangedAt  time.Time `bson:"changed_at"` // set by the store's caller (outbox.Collection) at each write
	Tombstone  bool      `bson:"tombstone"`  // deleted, kept until the janitor removes it
	WorkAt     time.Time `bson:"work_at"`    // when the worker has something to do; clock.Never when nothing
	DueAt      time.Time `bson:"due_at"`     // the earlier of WorkAt and every Kept.NextAt awaited; set by package outbox; always indexed
	Failures   int       `bson:"failures"`   // consecutive steps of the worker that ended in an unexpected error
	LeaseUntil time.Time `bson:"lease_until"`
	LeaseToken string    `bson:"lease_token"`
	Kept       []Kept    `bson:"kept"`    // facts that may have to be told again
	Trace      string    `bson:"trace"`   // traceparent (W3C Trace Context) of the request that made the document
	Orphans    []Orphan  `bson:"orphans"` // what a worker without lease created outside, for the janitor
}

// Kept is a fact that the document told and keeps, because somebody waits for an answer to it or may ask for it again.
type Kept struct {
	Key    string    `bson:"key"` // natural key inside the document, e.g. "accepted" or "authorization/7"
	Entry  Entry     `bson:"entry"`
	Await  bool      `bson:"await"` // true: an answer is awaited and the fact told again at NextAt
	Times  int       `bson:"times"` // how often it was told again
	NextAt time.Time `bson:"next_at"`
}

// Orphan names something created outside by a worker that had lost its lease, e.g. an order URL at a CA.
type Orphan struct {
	Kind string    `bson:"kind"`
	Ref  string    `bson:"ref"`
	At   time.Time `bson:"at"`
}

// EntryKind says where the relay takes an outbox entry.
type EntryKind string

// The kinds of outbox entries.
const (
	EntryEvent EntryKind = "event" // to the bus
	EntryAudit EntryKind = "audit" // to the audit trail
)

// Entry is one outbox entry: a fact as it goes to the bus, or an audit record as it goes to identity.
type Entry struct {
	ID      string            `bson:"id"` // ce-id: <document id>-<store epoch>-<revision>-<n>
	Kind    EntryKind         `bson:"kind"`
	Subject string            `bson:"subject"` // bus subject, empty for audit
	Headers map[string]string `bson:"headers"` // CloudEvents headers, see package bus; names contain no '.' or '$'
	Data    []byte            `bson:"data"`
	MsgID   string            `bson:"msg_id"` // Nats-Msg-Id: ID, or ID~k when told again
	At      time.Time         `bson:"at"`
}

// Doc is a stored aggregate. T is a struct with bson tags; no field of it at the top level may have omitempty, or a
// name that Meta has (both are refused by Open). Fields that a newer version of the program stored at the top level are kept by updates.
type Doc[T any] struct {
	Meta `bson:",inline"`
	Body T `bson:",inline"`
}

// Spec declares a collection. Everything that a query filters or sorts by must be declared here.
type Spec struct {
	Name    string
	Indexes []Index
}

// Index is an ordered list of top-level bson field names. The last order of every index is _id. Implicit, always there:
// _id, due_at, changed_at.
type Index struct {
	Fields []string
	Unique bool   // refused over an array field; the fields must be present in every document
	Array  string // the one field of Fields that is an array (membership query), or empty
}

// Op is a comparison of a condition.
type Op string

// The operators. Has is membership in the index's array field; Prefix is an anchored, case-sensitive prefix.
const (
	Eq     Op = "eq"
	In     Op = "in" // Value is []string
	Lt     Op = "lt"
	Lte    Op = "lte"
	Gt     Op = "gt"
	Gte    Op = "gte"
	Prefix Op = "prefix"
	Has    Op = "has"
)

// Cond is one condition. Values: string, bool, int64, time.Time, or []string for In.
type Cond struct {
	Field string
	Op    Op
	Value any
}

// Query asks for documents by one declared index: equalities (or In, or Has) on a leading part of its fields, then at most one
// range or prefix, ordered by the first field after the equalities (and then _id), or by _id when there is none left.
// Filter holds further conditions on any top-level field, applied to at most MaxScan rows; beyond that the answer is FILTER_TOO_BROAD.
type Query struct {
	Where  []Cond
	Filter []Cond
	Desc   bool
	Limit  int    // 1..1000; 0 means 100
	After  string // cursor of the page before, empty for the first
}

// MaxScan is how many rows Query.Filter may look at.
const MaxScan = 10_000

// Page is one page of documents, and the cursor of the next ("" after the last).
type Page[T any] struct {
	Docs []Doc[T]
	Next string
}

// Pending is an outbox entry not yet cleared, and the document whose write added it.
type Pending struct {
	Collection string
	DocID      string
	Entry      Entry
}

// Raw is an encoded document at the port: Meta's indexed parts are read from the BSON itself.
type Raw = []byte

// RawPage is a page of encoded documents.
type RawPage struct {
	Docs []Raw
	Next string
}

// Store is the port that an adapter implements. Errors are *errs.Error: NotFound, AlreadyExists (duplicate _id, Reason DUPLICATE_ID, or
// unique index, Reason DUPLICATE_KEY with Meta["index"] naming it), Conflict (revision moved on, Reason REVISION_CONFLICT), Invalid
// (undeclared index, bad cursor), Unavailable.
//
// Every successful write is durable when the call returns: SQLite has synced (synchronous=FULL; concurrent writes share one sync), MongoDB has
// acknowledged by a journaled majority.
type Store interface {
	// Ensure creates the collection and its indexes; it never drops or alters any.
	Ensure(ctx context.Context, spec Spec) error
	Get(ctx context.Context, collection, id string) (Raw, error)
	// Insert stores a new document and its outbox entries in one write.
	Insert(ctx context.Context, collection string, doc Raw, entries []Entry) error
	// Update replaces the known top-level fields of the document whose revision is still guard, keeps the fields it does not know, and adds the
	// entries to its outbox, in one write. doc carries the new revision.
	Update(ctx context.Context, collection string, guard int64, doc Raw, entries []Entry) error
	// Remove deletes the document for good if its revision is still guard and its outbox is empty (else Conflict).
	Remove(ctx context.Context, collection, id string, guard int64) error
	Find(ctx context.Context, collection string, q Query) (RawPage, error)
	// Count returns how many documents match, looking at no more than limit.
	Count(ctx context.Context, collection string, q Query, limit int) (int, error)
	// Outbox returns entries added before the moment given, of all collections, oldest document first and in order inside a document.
	Outbox(ctx context.Context, before time.Time, limit int) ([]Pending, error)
	// Clear removes these entries, in as few writes as possible. An entry that is gone already is not an error.
	Clear(ctx context.Context, sent []Pending) error
	// Epoch identifies this life of the store: a ULID, made with the store and again at each recovery from a backup.
	Epoch() string
	Close() error
}
