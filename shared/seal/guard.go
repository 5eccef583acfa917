package seal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/seal/localkek"
)

const (
	reasonMissing = localkek.ReasonMissing
	reasonForeign = "KEK_FOREIGN"
	reasonBroken  = "SEAL_BROKEN"
)

// GuardCollection is the collection of guard documents; the id of a guard is the name of its service.
const GuardCollection = "seal_guard"

// knownPlaintext is what a guard seals.
var knownPlaintext = []byte("certwright seal guard v1")

// guard is the body of the guard document.
type guard struct {
	KEK    string `bson:"kek"`
	Sealed Sealed `bson:"sealed"`
}

// OpenKEK returns the Sealer of a service whose KEK is the file at path, and makes sure that it is the KEK that the store was sealed
// with.
//
// A key file is made only when the store holds no guard for the service, that is when nothing was sealed yet; a file that is already
// there is used. Nothing is ever overwritten. When several processes start at once on a fresh store, the first guard stored decides:
// the others use the same file, or (on another host) remove the key that they have just made and stop as below.
//
// Precondition KEK_MISSING: the store wants a KEK and there is no file at path; KEK_FOREIGN: the file holds another one. Both have
// Meta "wanted", "found" (absent when missing) and "path", and say how to mend it. Also the errors of localkek.Load and of the store.
func OpenKEK(ctx context.Context, store docstore.Store, path, service string) (*Sealer, error) {
	return openKEK(ctx, store, path, service, clock.System())
}

func openKEK(ctx context.Context, store docstore.Store, path, service string, clk clock.Clock) (*Sealer, error) {
	if err := store.Ensure(ctx, docstore.Spec{Name: GuardCollection}); err != nil {
		return nil, err
	}
	g, err := loadGuard(ctx, store, service)
	if err != nil {
		return nil, err
	}
	if g != nil {
		return checked(ctx, g, path, service, clk)
	}

	kek, made, err := loadOrCreate(path)
	if err != nil {
		return nil, err
	}
	s := New(kek, clk)
	sealed, err := s.Seal(ctx, knownPlaintext, []byte(service))
	if err != nil {
		return nil, err
	}
	err = insertGuard(ctx, store, service, guard{KEK: kek.ID(), Sealed: sealed}, clk)
	switch {
	case err == nil:
		return s, nil
	case errs.KindOf(err) != errs.AlreadyExists:
		return nil, err // the file stays: the insert may have happened, and the next start finds out
	}
	// Another process was first.
	if g, err = loadGuard(ctx, store, service); err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errs.New(errs.Conflict, "", "the seal guard of %s came and went; start again", service)
	}
	if made && g.KEK != kek.ID() {
		// Nothing can have been sealed with this key: whoever loads it stops right here, at the guard.
		if err := os.Remove(path); err != nil {
			return nil, errs.New(errs.Precondition, localkek.ReasonUnreadable, "a key file that is of no use cannot be removed: %w", err).WithMeta("path", path)
		}
	}
	return checked(ctx, g, path, service, clk)
}

// checked loads the key file and compares it with the guard.
func checked(ctx context.Context, g *guard, path, service string, clk clock.Clock) (*Sealer, error) {
	kek, err := localkek.Load(path)
	if errs.ReasonOf(err) == reasonMissing {
		return nil, errs.New(errs.Precondition, reasonMissing,
			"the secrets of %s are sealed under the key-encryption key %q, but there is no key file at %q; restore that file from its backup or copy it from the host that has it (mode 0600). "+
				"If it is truly lost, what it sealed is lost: start with an empty store and request anew", service, g.KEK, path).
			WithMeta("wanted", g.KEK).WithMeta("path", path)
	}
	if err != nil {
		return nil, err
	}
	if kek.ID() != g.KEK {
		return nil, errs.New(errs.Precondition, reasonForeign,
			"the secrets of %s are sealed under the key-encryption key %q, but the file %q holds %q; move that file away and put the right one there (mode 0600). "+
				"If it is truly lost, what it sealed is lost: start with an empty store and request anew", service, g.KEK, path, kek.ID()).
			WithMeta("wanted", g.KEK).WithMeta("found", kek.ID()).WithMeta("path", path)
	}
	s := New(kek, clk)
	plaintext, err := s.Open(ctx, g.Sealed, []byte(service))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(plaintext, knownPlaintext) {
		return nil, errs.New(errs.Precondition, reasonBroken, "the seal guard of %s opens to something else than it should", service)
	}
	return s, nil
}

func loadOrCreate(path string) (kek *localkek.Key, made bool, err error) {
	kek, err = localkek.Load(path)
	if errs.ReasonOf(err) != reasonMissing {
		return kek, false, err
	}
	kek, err = localkek.Create(path)
	if errors.Is(err, fs.ErrExist) { // made by another process since
		kek, err = localkek.Load(path)
		return kek, false, err
	}
	return kek, err == nil, err
}

// loadGuard returns nil when there is no guard.
func loadGuard(ctx context.Context, store docstore.Store, service string) (*guard, error) {
	raw, err := store.Get(ctx, GuardCollection, service)
	if errs.KindOf(err) == errs.NotFound {
		return nil, nil //nolint:nilnil // absence is an answer here, not an error
	}
	if err != nil {
		return nil, err
	}
	var doc docstore.Doc[guard]
	if err := bson.Unmarshal(raw, &doc); err != nil {
		return nil, errs.New(errs.Precondition, reasonBroken, "the seal guard of %s cannot be read: %w", service, err)
	}
	return &doc.Body, nil
}

func insertGuard(ctx context.Context, store docstore.Store, service string, g guard, clk clock.Clock) error {
	now := clk.Now()
	raw, err := bson.Marshal(docstore.Doc[guard]{
		Meta: docstore.Meta{
			ID: service, Revision: 1, Team: "default", CreatedAt: now, ChangedAt: now, DueAt: clock.Never,
			Kept: []docstore.Kept{}, Orphans: []docstore.Orphan{},
		},
		Body: g,
	})
	if err != nil {
		return errs.New(errs.Internal, "", "encoding the seal guard: %w", err)
	}
	return store.Insert(ctx, GuardCollection, raw, nil)
}
