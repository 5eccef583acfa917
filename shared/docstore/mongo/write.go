package mongo

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

const (
	clearAttempts = 20
	clearChunk    = 500
)

// outboxItem is one element of the array outbox.
type outboxItem struct {
	Entry docstore.Entry `bson:"entry"`
	Added time.Time      `bson:"added"`
}

// outboxState is what a document says about its outbox.
type outboxState struct {
	ID       string       `bson:"_id"`
	Revision int64        `bson:"revision"`
	Clears   int64        `bson:"outbox_clears"`
	At       time.Time    `bson:"outbox_at"`
	Pending  bool         `bson:"outbox_pending"`
	Items    []outboxItem `bson:"outbox"`
}

// items encodes entries for the array outbox.
func items(doc *plan.Doc, entries []docstore.Entry) (bson.A, error) {
	all := make(bson.A, 0, len(entries))
	for _, e := range entries {
		raw, err := docstore.Marshal(outboxItem{Entry: e, Added: doc.ChangedAt})
		if err != nil {
			return nil, err
		}
		all = append(all, bson.Raw(raw))
	}
	return all, nil
}

// Insert implements docstore.Store.
func (s *Store) Insert(ctx context.Context, collection string, raw docstore.Raw, entries []docstore.Entry) error {
	schema, c, err := s.of(collection)
	if err != nil {
		return err
	}
	doc, err := plan.Parse(raw)
	if err != nil {
		return err
	}
	if err := schema.CheckUnique(doc); err != nil {
		return err
	}
	outbox, err := items(doc, entries)
	if err != nil {
		return err
	}
	stored, err := bson.Raw(raw).Elements()
	if err != nil {
		return errs.New(errs.Invalid, "BAD_DOCUMENT", "the document is not BSON: %w", err)
	}
	full := make(bson.D, 0, len(stored)+len(hidden))
	for _, e := range stored {
		full = append(full, bson.E{Key: e.Key(), Value: e.Value()})
	}
	at := clock.Never
	if len(outbox) > 0 {
		at = doc.ChangedAt
	}
	full = append(full, bson.E{Key: "outbox", Value: outbox}, bson.E{Key: "outbox_pending", Value: len(outbox) > 0},
		bson.E{Key: "outbox_at", Value: at}, bson.E{Key: "outbox_clears", Value: int64(0)})
	_, err = c.InsertOne(ctx, full)
	if err != nil && isDuplicate(err) {
		return s.duplicate(ctx, schema, c, doc, true)
	}
	return classify(ctx, err)
}

// Update implements docstore.Store.
func (s *Store) Update(ctx context.Context, collection string, guard int64, raw docstore.Raw, entries []docstore.Entry) error {
	schema, c, err := s.of(collection)
	if err != nil {
		return err
	}
	doc, err := plan.Parse(raw)
	if err != nil {
		return err
	}
	if err := plan.CheckUpdate(doc, guard); err != nil {
		return err
	}
	if err := schema.CheckUniqueUpdate(doc); err != nil {
		return err
	}
	outbox, err := items(doc, entries)
	if err != nil {
		return err
	}
	known, err := bson.Raw(raw).Elements()
	if err != nil {
		return errs.New(errs.Invalid, "BAD_DOCUMENT", "the document is not BSON: %w", err)
	}
	set := make(bson.D, 0, len(known)+1)
	for _, e := range known {
		if e.Key() != plan.ID {
			set = append(set, bson.E{Key: e.Key(), Value: e.Value()})
		}
	}
	change := bson.D{}
	if len(outbox) > 0 {
		set = append(set, bson.E{Key: "outbox_pending", Value: true})
		change = append(change, bson.E{Key: "$push", Value: bson.D{{Key: "outbox", Value: bson.D{{Key: "$each", Value: outbox}}}}},
			bson.E{Key: "$min", Value: bson.D{{Key: "outbox_at", Value: doc.ChangedAt}}})
	}
	change = append(change, bson.E{Key: "$set", Value: set})
	result, err := c.UpdateOne(ctx, bson.D{{Key: plan.ID, Value: doc.ID}, {Key: "revision", Value: guard}}, change)
	switch {
	case err != nil && isDuplicate(err):
		return s.duplicate(ctx, schema, c, doc, false)
	case err != nil:
		return classify(ctx, err)
	case result.MatchedCount == 0:
		_, err := state(ctx, collection, c, doc.ID)
		return cmp.Or(err, plan.Moved(collection, doc.ID, guard))
	}
	return nil
}

// Remove implements docstore.Store.
func (s *Store) Remove(ctx context.Context, collection, id string, guard int64) error {
	_, c, err := s.of(collection)
	if err != nil {
		return err
	}
	result, err := c.DeleteOne(ctx, bson.D{
		{Key: plan.ID, Value: id}, {Key: "revision", Value: guard}, {Key: "outbox_pending", Value: false},
	})
	if err != nil {
		return classify(ctx, err)
	}
	if result.DeletedCount > 0 {
		return nil
	}
	now, err := state(ctx, collection, c, id)
	switch {
	case err != nil:
		return err
	case now.Revision != guard:
		return plan.Moved(collection, id, guard)
	default:
		return plan.OutboxPending(collection, id)
	}
}

// state reads a document's revision and whether its outbox is empty, to say why a write did not match.
func state(ctx context.Context, collection string, c *mongo.Collection, id string) (outboxState, error) {
	var now outboxState
	fields := bson.D{{Key: "revision", Value: 1}, {Key: "outbox_pending", Value: 1}}
	err := c.FindOne(ctx, byID(id), options.FindOne().SetProjection(fields)).Decode(&now)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return now, plan.NotFound(collection, id)
	}
	return now, classify(ctx, err)
}

// duplicate finds out which uniqueness a write violated; not every server names the index in its message.
func (s *Store) duplicate(ctx context.Context, schema *plan.Schema, c *mongo.Collection, doc *plan.Doc, inserted bool) error {
	if inserted {
		_, err := state(ctx, schema.Name, c, doc.ID)
		if err == nil {
			return plan.DuplicateID(schema.Name, doc.ID)
		}
		if errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	guess := ""
	for _, ix := range schema.Indexes {
		if !ix.Unique {
			continue
		}
		same := bson.D{}
		for _, f := range ix.Fields {
			if v := doc.Scalar(f); v != nil {
				same = append(same, bson.E{Key: f, Value: v})
			}
		}
		if len(same) < len(ix.Fields) {
			continue // the update leaves the stored value
		}
		if guess == "" {
			guess = ix.Name
		}
		cursor, err := c.Find(ctx, same, options.Find().SetProjection(bson.D{{Key: plan.ID, Value: 1}}).SetLimit(2))
		if err != nil {
			return classify(ctx, err)
		}
		var found []outboxState
		if err := cursor.All(ctx, &found); err != nil {
			return classify(ctx, err)
		}
		if slices.ContainsFunc(found, func(o outboxState) bool { return o.ID != doc.ID }) {
			return plan.DuplicateKey(schema.Name, ix.Name)
		}
	}
	return plan.DuplicateKey(schema.Name, guess) // the other document is gone again
}

// Outbox implements docstore.Store.
func (s *Store) Outbox(ctx context.Context, before time.Time, limit int) ([]docstore.Pending, error) {
	type found struct {
		collection string
		outboxState
	}
	names, err := s.collections()
	if err != nil || limit < 1 {
		return nil, err
	}
	var all []found
	for _, name := range names {
		filter := bson.D{{Key: "outbox_pending", Value: true}, {Key: "outbox_at", Value: bson.D{{Key: "$lt", Value: before}}}}
		cursor, err := s.db.Collection(name).Find(ctx, filter, options.Find().SetLimit(int64(limit)).
			SetSort(bson.D{{Key: "outbox_at", Value: 1}, {Key: plan.ID, Value: 1}}).SetProjection(bson.D{{Key: "outbox", Value: 1}, {Key: "outbox_at", Value: 1}}))
		if err != nil {
			return nil, classify(ctx, err)
		}
		var docs []outboxState
		if err := cursor.All(ctx, &docs); err != nil {
			return nil, classify(ctx, err)
		}
		for _, d := range docs {
			all = append(all, found{name, d})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return a.At.Compare(b.At) })
	g := plan.NewGather(before, limit)
	for _, d := range all {
		for _, item := range d.Items {
			_, err := g.Offer(d.collection, d.ID, item.Added, func() (docstore.Entry, error) { return item.Entry, nil })
			if err != nil {
				return nil, err
			}
		}
	}
	return g.Pending(), nil
}

func (s *Store) collections() ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, plan.Closed()
	}
	names := make([]string, 0, len(s.schemas))
	for name := range s.schemas {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Clear implements docstore.Store: for each collection one read and one bulk write, repeated for documents that moved on between the two.
func (s *Store) Clear(ctx context.Context, sent []docstore.Pending) error {
	byCollection := map[string]map[string][]docstore.Entry{}
	for _, p := range sent {
		docs := byCollection[p.Collection]
		if docs == nil {
			docs = map[string][]docstore.Entry{}
			byCollection[p.Collection] = docs
		}
		docs[p.DocID] = append(docs[p.DocID], p.Entry)
	}
	for name, docs := range byCollection {
		_, c, err := s.of(name)
		if err != nil {
			return err
		}
		ids := make([]string, 0, len(docs))
		for id := range docs {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for chunk := range slices.Chunk(ids, clearChunk) {
			if err := clearDocs(ctx, c, chunk, docs); err != nil {
				return classify(ctx, err)
			}
		}
	}
	return nil
}

func clearDocs(ctx context.Context, c *mongo.Collection, ids []string, sent map[string][]docstore.Entry) error {
	for range clearAttempts {
		cursor, err := c.Find(ctx, bson.D{{Key: plan.ID, Value: bson.D{{Key: "$in", Value: ids}}}, {Key: "outbox_pending", Value: true}},
			options.Find().SetProjection(bson.D{{Key: "revision", Value: 1}, {Key: "outbox", Value: 1}, {Key: "outbox_clears", Value: 1}}))
		if err != nil {
			return err
		}
		var docs []outboxState
		if err := cursor.All(ctx, &docs); err != nil {
			return err
		}
		var writes []mongo.WriteModel
		for _, d := range docs {
			w, err := clearing(d, sent[d.ID])
			if err != nil {
				return err
			}
			if w != nil {
				writes = append(writes, w)
			}
		}
		if len(writes) == 0 {
			return nil
		}
		result, err := c.BulkWrite(ctx, writes, options.BulkWrite().SetOrdered(false))
		if err != nil {
			return err
		}
		if result.MatchedCount == int64(len(writes)) {
			return nil
		}
	}
	return errs.New(errs.Conflict, "REVISION_CONFLICT", "the outboxes to clear keep changing")
}

// clearing is the write that leaves in the outbox what was not sent, or nil when nothing was.
func clearing(d outboxState, sent []docstore.Entry) (mongo.WriteModel, error) {
	left := bson.A{}
	at := clock.Never
	for _, item := range d.Items {
		if slices.ContainsFunc(sent, func(e docstore.Entry) bool { return plan.Same(item.Entry, e) }) {
			continue
		}
		raw, err := docstore.Marshal(item)
		if err != nil {
			return nil, err
		}
		left = append(left, bson.Raw(raw))
		if item.Added.Before(at) {
			at = item.Added
		}
	}
	if len(left) == len(d.Items) {
		return nil, nil //nolint:nilnil // nothing to write is no error
	}
	return mongo.NewUpdateOneModel().
		SetFilter(bson.D{{Key: plan.ID, Value: d.ID}, {Key: "revision", Value: d.Revision}, {Key: "outbox_clears", Value: d.Clears}}).
		SetUpdate(bson.D{
			{Key: "$set", Value: bson.D{
				{Key: "outbox", Value: left}, {Key: "outbox_pending", Value: len(left) > 0}, {Key: "outbox_at", Value: at},
			}},
			{Key: "$inc", Value: bson.D{{Key: "outbox_clears", Value: int64(1)}}},
		}), nil
}
