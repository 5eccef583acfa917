// Package mongo is the docstore adapter for MongoDB 4.4 and later, in the subset that FerretDB and Amazon DocumentDB 5 speak too: no transactions,
// no change streams, no pipelines in updates.
//
// A document is stored as it is encoded, with four fields beside its own that no caller sees: outbox (the entries not yet cleared, each
// with the moment when it was added), outbox_pending, outbox_at (the oldest of these moments, 9999 when there is none) and
// outbox_clears (counts the clearings, so that two at once cannot bring an entry back). Writes are acknowledged by a journaled majority.
package mongo

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

const (
	selectionTimeout = 5 * time.Second // for a server, unless the URI says otherwise
	closeTimeout     = 10 * time.Second
	batchSize        = 500
	metaCollection   = "store-meta" // no declared collection can have a '-'
)

// Options say where the store is. URI and Database are required. FerretDB v1 needs maxPoolSize=1 in the URI.
type Options struct {
	URI       string // mongodb://… with its credentials: never log it
	Database  string
	Clock     clock.Clock           // gives the moment in the epoch; nil is the system's
	Recovered bool                  // the database was restored from a backup: begin a new epoch
	Monitor   *event.CommandMonitor // for metrics and traces; may be nil
}

// Store is a docstore.Store in one MongoDB database.
type Store struct {
	client *mongo.Client
	db     *mongo.Database
	epoch  string

	mu      sync.RWMutex // guards what follows
	schemas map[string]*plan.Schema
	closed  bool
}

var _ docstore.Store = (*Store)(nil)

// Open connects and reads or begins the epoch. Errors are Invalid (BAD_URI) and Unavailable.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Database == "" {
		return nil, errs.New(errs.Invalid, "BAD_URI", "the store needs the name of a database")
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	journal := true
	opts := options.Client().ApplyURI(o.URI)
	if opts.Validate() != nil { // the error itself may quote the URI with its password
		return nil, errs.New(errs.Invalid, "BAD_URI", "the store's URI is not a valid mongodb:// or mongodb+srv:// URI")
	}
	opts.SetWriteConcern(&writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}).
		SetReadPreference(readpref.Primary()).SetMonitor(o.Monitor).SetAppName("certwright")
	if opts.ServerSelectionTimeout == nil {
		opts.SetServerSelectionTimeout(selectionTimeout)
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, errs.New(errs.Invalid, "BAD_URI", "the store's URI is refused")
	}
	s := &Store{client: client, db: client.Database(o.Database), schemas: map[string]*plan.Schema{}}
	if err := s.begin(ctx, o); err != nil {
		_ = s.Close()
		return nil, classify(ctx, err)
	}
	return s, nil
}

// begin reads the epoch, making it first if there is none or the database was recovered.
func (s *Store) begin(ctx context.Context, o Options) error {
	fresh := ulid.MustNew(ulid.Timestamp(o.Clock.Now()), ulid.DefaultEntropy()).String()
	verb := "$setOnInsert"
	if o.Recovered {
		verb = "$set"
	}
	meta := s.db.Collection(metaCollection)
	byID := bson.D{{Key: "_id", Value: "epoch"}}
	_, err := meta.UpdateOne(ctx, byID, bson.D{{Key: verb, Value: bson.D{{Key: "value", Value: fresh}}}},
		options.UpdateOne().SetUpsert(true))
	if err != nil && !isDuplicate(err) { // another replica made it at the same moment
		return err
	}
	var doc struct {
		Value string `bson:"value"`
	}
	if err := meta.FindOne(ctx, byID).Decode(&doc); err != nil {
		return err
	}
	s.epoch = doc.Value
	return nil
}

// Epoch implements docstore.Store.
func (s *Store) Epoch() string { return s.epoch }

// Close implements docstore.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.client.Disconnect(ctx); err != nil {
		return classify(ctx, err)
	}
	return nil
}

// Ensure implements docstore.Store.
func (s *Store) Ensure(ctx context.Context, spec docstore.Spec) error {
	schema, err := plan.New(spec)
	if err != nil {
		return err
	}
	views := s.db.Collection(spec.Name).Indexes()
	create := func(name string, unique bool, fields ...string) error {
		keys := make(bson.D, 0, len(fields)+1)
		for _, f := range fields {
			keys = append(keys, bson.E{Key: f, Value: 1})
		}
		opts := options.Index().SetName(name)
		if unique {
			opts.SetUnique(true)
		} else {
			keys = append(keys, bson.E{Key: plan.ID, Value: 1})
		}
		_, err := views.CreateOne(ctx, mongo.IndexModel{Keys: keys, Options: opts})
		var ce mongo.CommandError
		switch {
		case errors.As(err, &ce) && (ce.Code == codeIndexOptionsConflict || ce.Code == codeIndexKeysConflict):
			return plan.IndexChanged(spec.Name, name)
		case err != nil && isDuplicate(err):
			return plan.DuplicateKey(spec.Name, name)
		}
		return classify(ctx, err)
	}
	for _, ix := range schema.Indexes {
		if err := create(ix.Name, ix.Unique, ix.Fields...); err != nil {
			return err
		}
	}
	if err := create("outbox", false, "outbox_pending", "outbox_at"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schemas[spec.Name] = schema
	return nil
}

// of returns the declaration and the collection.
func (s *Store) of(name string) (*plan.Schema, *mongo.Collection, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	schema := s.schemas[name]
	switch {
	case s.closed:
		return nil, nil, plan.Closed()
	case schema == nil:
		return nil, nil, plan.UnknownCollection(name)
	}
	return schema, s.db.Collection(name), nil
}

// hidden keeps the adapter's own fields from callers.
var hidden = bson.D{
	{Key: "outbox", Value: 0}, {Key: "outbox_pending", Value: 0}, {Key: "outbox_at", Value: 0}, {Key: "outbox_clears", Value: 0},
}

// Get implements docstore.Store.
func (s *Store) Get(ctx context.Context, collection, id string) (docstore.Raw, error) {
	_, c, err := s.of(collection)
	if err != nil {
		return nil, err
	}
	raw, err := c.FindOne(ctx, byID(id), options.FindOne().SetProjection(hidden)).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, plan.NotFound(collection, id)
	}
	return raw, classify(ctx, err)
}

func byID(id string) bson.D { return bson.D{{Key: plan.ID, Value: id}} }

// Find implements docstore.Store.
func (s *Store) Find(ctx context.Context, collection string, q docstore.Query) (docstore.RawPage, error) {
	schema, c, err := s.of(collection)
	if err != nil {
		return docstore.RawPage{}, err
	}
	p, err := schema.Plan(q)
	if err != nil {
		return docstore.RawPage{}, err
	}
	page, err := p.Collect(rows(ctx, c, p))
	return page, classify(ctx, err)
}

// Count implements docstore.Store.
func (s *Store) Count(ctx context.Context, collection string, q docstore.Query, limit int) (int, error) {
	q, err := plan.ForCount(q, limit)
	if err != nil {
		return 0, err
	}
	schema, c, err := s.of(collection)
	if err != nil {
		return 0, err
	}
	p, err := schema.Plan(q)
	if err != nil {
		return 0, err
	}
	if p.Filtered() {
		n, err := p.Count(rows(ctx, c, p), limit)
		return n, classify(ctx, err)
	}
	filter, some := filterOf(p)
	if !some {
		return 0, nil
	}
	n, err := c.CountDocuments(ctx, filter, options.Count().SetLimit(int64(limit)))
	return int(n), classify(ctx, err)
}

func rows(ctx context.Context, c *mongo.Collection, p *plan.Plan) iter.Seq2[docstore.Raw, error] {
	return func(yield func(docstore.Raw, error) bool) {
		filter, some := filterOf(p)
		if !some {
			return
		}
		n := min(p.Rows(), batchSize)
		cursor, err := c.Find(ctx, filter, options.Find().SetSort(sortOf(p)).SetLimit(int64(p.Rows())).
			SetBatchSize(int32(n)).SetProjection(hidden)) //nolint:gosec // at most batchSize
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = cursor.Close(ctx) }() // what was read is good
		for cursor.Next(ctx) {
			if !yield(bytes.Clone(cursor.Current), nil) {
				return
			}
		}
		if err := cursor.Err(); err != nil {
			yield(nil, err)
		}
	}
}

func sortOf(p *plan.Plan) bson.D {
	direction := 1
	if p.Desc {
		direction = -1
	}
	if p.Order == plan.ID {
		return bson.D{{Key: plan.ID, Value: direction}}
	}
	return bson.D{{Key: p.Order, Value: direction}, {Key: plan.ID, Value: direction}}
}

// filterOf turns a plan into a filter; false means that nothing can match.
func filterOf(p *plan.Plan) (filter bson.D, some bool) {
	var all bson.A
	add := func(field string, value any) { all = append(all, bson.D{{Key: field, Value: value}}) }
	for _, e := range p.Equal {
		switch len(e.Values) {
		case 0:
			return nil, false
		case 1:
			add(e.Field, e.Values[0])
		default:
			add(e.Field, bson.D{{Key: "$in", Value: e.Values}})
		}
	}
	var ends bson.D
	if p.Low != nil {
		ends = append(ends, bson.E{Key: pick(p.Low.Inclusive, "$gte", "$gt"), Value: p.Low.Value})
	}
	if p.High != nil {
		ends = append(ends, bson.E{Key: pick(p.High.Inclusive, "$lte", "$lt"), Value: p.High.Value})
	}
	if len(ends) > 0 {
		add(p.Order, ends)
	}
	if p.After != nil {
		all = append(all, after(p)...)
	}
	switch len(all) {
	case 0:
		return bson.D{}, true
	case 1:
		return all[0].(bson.D), true //nolint:forcetypeassert // only these are added
	default:
		return bson.D{{Key: "$and", Value: all}}, true
	}
}

// after is the condition that a row comes after the plan's position. A missing order field sorts below every value, but no comparison
// with a value finds it, so it has a branch of its own.
func after(p *plan.Plan) bson.A {
	beyond := pick(p.Desc, "$lt", "$gt")
	id := bson.E{Key: plan.ID, Value: bson.D{{Key: beyond, Value: p.After.ID}}}
	if p.Order == plan.ID {
		return bson.A{bson.D{id}}
	}
	same := bson.D{{Key: p.Order, Value: p.After.Value}, id}
	switch {
	case p.After.Value == nil && p.Desc:
		return bson.A{same}
	case p.After.Value == nil:
		there := bson.D{{Key: p.Order, Value: bson.D{{Key: "$ne", Value: nil}}}}
		return bson.A{bson.D{{Key: "$or", Value: bson.A{same, there}}}}
	}
	further := bson.D{{Key: p.Order, Value: bson.D{{Key: beyond, Value: p.After.Value}}}}
	if p.Desc && p.Low == nil && p.High == nil && p.Order != "due_at" && p.Order != "changed_at" {
		missing := bson.D{{Key: p.Order, Value: nil}}
		return bson.A{bson.D{{Key: "$or", Value: bson.A{further, same, missing}}}}
	}
	// The bound says nothing new; it lets the index begin at the position.
	bound := bson.D{{Key: p.Order, Value: bson.D{{Key: beyond + "e", Value: p.After.Value}}}}
	return bson.A{bound, bson.D{{Key: "$or", Value: bson.A{further, same}}}}
}

func pick(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
