package plan

import (
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// EncodeEntry encodes an outbox entry for storage.
func EncodeEntry(e docstore.Entry) ([]byte, error) { return docstore.Marshal(e) }

// DecodeEntry reads what EncodeEntry wrote.
func DecodeEntry(raw []byte) (docstore.Entry, error) {
	var e docstore.Entry
	if err := bson.Unmarshal(raw, &e); err != nil {
		return docstore.Entry{}, errs.New(errs.Internal, "CORRUPT_DOCUMENT", "decode an outbox entry: %w", err)
	}
	return e, nil
}

// Same tells whether an entry is the one that was sent. One told again has the same ID and another MsgID.
func Same(e, sent docstore.Entry) bool { return e.ID == sent.ID && e.MsgID == sent.MsgID }

// Gather picks pending entries: fed in the order in which they were added, it keeps those added before the moment given, and of
// each document only a leading part of its outbox, so that its order holds.
type Gather struct {
	before time.Time
	limit  int
	left   int
	docs   []*gathered
	byID   map[[2]string]*gathered
}

type gathered struct {
	stopped bool
	entries []docstore.Pending
}

// NewGather starts an empty one.
func NewGather(before time.Time, limit int) *Gather {
	return &Gather{before: before, limit: limit, left: limit, byID: map[[2]string]*gathered{}}
}

// Offer takes the next entry, if it is wanted; entry is called only then. It returns false when the limit is reached.
func (g *Gather) Offer(collection, docID string, at time.Time, entry func() (docstore.Entry, error)) (bool, error) {
	if g.left <= 0 {
		return false, nil
	}
	key := [2]string{collection, docID}
	d := g.byID[key]
	if d == nil {
		d = &gathered{}
		g.byID[key] = d
		g.docs = append(g.docs, d)
	}
	if d.stopped || !at.Before(g.before) {
		d.stopped = true
		return true, nil
	}
	e, err := entry()
	if err != nil {
		return false, err
	}
	d.entries = append(d.entries, docstore.Pending{Collection: collection, DocID: docID, Entry: e})
	g.left--
	return g.left > 0, nil
}

// Pending returns what was kept, by document, the document with the oldest entry first.
func (g *Gather) Pending() []docstore.Pending {
	var all []docstore.Pending
	for _, d := range g.docs {
		all = append(all, d.entries...)
	}
	return slices.Clip(all)
}
