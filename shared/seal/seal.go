// Package seal is envelope encryption: every secret that a service stores is sealed with AES-256-GCM under a data encryption key
// (DEK), and the DEK is wrapped by the service's key-encryption key (KEK), which the store never sees.
//
// Each service has its own KEK. The store keeps the KEK's id and a sealed known plaintext (the guard), so that a service started
// with no or with a foreign KEK stops, naming both, before it makes anything unreadable: see OpenKEK.
//
// Sealing to another process (Receiver, SealTo) is HPKE and needs no KEK.
package seal

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// KEK is the port to a key-encryption key: a local file (package localkek), a cloud KMS, Vault transit, PKCS#11. It wraps data
// keys only, never a user's secret. It is safe for concurrent use. Errors are *errs.Error: Unavailable when the KMS cannot be
// reached, Precondition when the wrapped key is not this KEK's.
type KEK interface {
	// ID names the key, not where it is kept; two keys never share an id.
	ID() string
	// Wrap encrypts a data key; aad has to be given again to Unwrap.
	Wrap(ctx context.Context, dek, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, aad []byte) ([]byte, error)
}

// Sealed is a sealed secret as it is stored, inside the document that it belongs to.
type Sealed struct {
	KEK        string `bson:"kek" json:"kek"`               // id of the KEK that wraps DEK
	DEK        []byte `bson:"dek" json:"dek"`               // wrapped data key
	Ciphertext []byte `bson:"ciphertext" json:"ciphertext"` // 12 bytes of nonce, the ciphertext, 16 bytes of tag
}

// IsZero reports whether nothing is sealed in s.
func (s Sealed) IsZero() bool { return s.KEK == "" && len(s.DEK) == 0 && len(s.Ciphertext) == 0 }

// A data key is used for at most this many seals and this long, whichever ends first, and is then replaced by a new one. It keeps a
// KMS out of the way of a busy service. Random 96-bit nonces under one key are safe up to 2^32 messages (NIST SP 800-38D, 8.3).
const (
	maxSealsPerDEK = 1 << 16
	maxDEKAge      = 10 * time.Minute
	dekSize        = 32
)

// Sealer seals and opens secrets under one KEK. It is safe for concurrent use.
type Sealer struct {
	kek KEK
	clk clock.Clock

	mu  sync.Mutex
	dek dataKey // the one in use for sealing; zero before the first seal
}

type dataKey struct {
	aead    *subtle.AESGCM
	wrapped []byte
	seals   int
	born    time.Time
}

// New makes a Sealer under kek. Services use OpenKEK, which also checks that kek is the one that the store was sealed with.
func New(kek KEK, clk clock.Clock) *Sealer { return &Sealer{kek: kek, clk: clk} }

// KEK returns the id of the KEK.
func (s *Sealer) KEK() string { return s.kek.ID() }

// Seal encrypts plaintext. aad is not secret; it binds the result to its place (the id of its document, and the field's name when there
// are several), so that a sealed value copied into another document does not open there.
func (s *Sealer) Seal(ctx context.Context, plaintext, aad []byte) (Sealed, error) {
	key, err := s.current(ctx)
	if err != nil {
		return Sealed{}, err
	}
	ciphertext, err := key.aead.Encrypt(plaintext, aad)
	if err != nil {
		return Sealed{}, errs.New(errs.Internal, "", "seal: %w", err)
	}
	return Sealed{KEK: s.kek.ID(), DEK: key.wrapped, Ciphertext: ciphertext}, nil
}

// Open decrypts what Seal made with the same aad. Precondition KEK_FOREIGN: sealed under another KEK; Precondition SEAL_BROKEN: the
// bytes were changed, or belong to another document. Neither can be mended by trying again.
func (s *Sealer) Open(ctx context.Context, sealed Sealed, aad []byte) ([]byte, error) {
	if sealed.KEK != s.kek.ID() {
		return nil, errs.New(errs.Precondition, reasonForeign, "sealed under the key-encryption key %q, but the one at hand is %q", sealed.KEK, s.kek.ID()).
			WithMeta("wanted", sealed.KEK).WithMeta("found", s.kek.ID())
	}
	dek, err := s.kek.Unwrap(ctx, sealed.DEK, s.wrapAAD())
	if err != nil {
		return nil, err
	}
	defer clear(dek)
	aead, err := subtle.NewAESGCM(dek)
	if err != nil {
		return nil, errs.New(errs.Precondition, reasonBroken, "the data key has the wrong size: %w", err)
	}
	plaintext, err := aead.Decrypt(sealed.Ciphertext, aad)
	if err != nil {
		return nil, errs.New(errs.Precondition, reasonBroken, "a sealed value does not open: it was changed, or it belongs to another document")
	}
	return plaintext, nil
}

// current returns the data key to seal with and counts the use. The KEK is called under the lock, so that a burst of seals after an
// expiry makes one new key and not many.
func (s *Sealer) current(ctx context.Context) (dataKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clk.Now()
	if s.dek.aead == nil || s.dek.seals >= maxSealsPerDEK || now.Sub(s.dek.born) >= maxDEKAge || now.Before(s.dek.born) {
		key, err := s.newKey(ctx, now)
		if err != nil {
			return dataKey{}, err
		}
		s.dek = key
	}
	s.dek.seals++
	return s.dek, nil
}

func (s *Sealer) newKey(ctx context.Context, now time.Time) (dataKey, error) {
	dek := make([]byte, dekSize)
	defer clear(dek)
	_, _ = rand.Read(dek) // never fails, crypto/rand
	wrapped, err := s.kek.Wrap(ctx, dek, s.wrapAAD())
	if err != nil {
		return dataKey{}, err
	}
	aead, err := subtle.NewAESGCM(dek)
	if err != nil {
		return dataKey{}, errs.New(errs.Internal, "", "seal: %w", err)
	}
	return dataKey{aead: aead, wrapped: wrapped, born: now}, nil
}

func (s *Sealer) wrapAAD() []byte { return []byte("certwright data key v1 " + s.kek.ID()) }
