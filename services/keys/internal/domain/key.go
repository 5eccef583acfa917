// Package domain is the life of a private key, from the CSR of an order to its destruction (NIST SP 800-57 part 1, section 7).
// It never sees a key in the clear.
package domain

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	keyeventsv1 "github.com/certwright/certwright/api/certwright/events/key/v1"
	"github.com/certwright/certwright/shared/errs"
)

// State of a key.
type State = string

// The states. Only Destroyed is final.
const (
	PreActive   State = "pre_active"  // made for an order that has no outcome yet
	Active      State = "active"      // its certificate is the newest version
	Deactivated State = "deactivated" // superseded, kept for a rollback; or of a version that is not needed
	Compromised State = "compromised" // its version was revoked for keyCompromise; it leaves the service no more
	Destroyed   State = "destroyed"   // erased, or never made because its order had ended
)

// States lists every state.
func States() []State { return []State{PreActive, Active, Deactivated, Compromised, Destroyed} }

// Why a key was destroyed.
const (
	OrderEnded         = "order_ended"
	VersionRefused     = "version_refused"
	Superseded         = "superseded"
	CertificateDeleted = "certificate_deleted"
)

// maxReleases bounds the list of the last receivers in a key's document.
const maxReleases = 10

// Sealed is a private key (PKCS#8, DER) sealed under the service's key-encryption key; it has the form of seal.Sealed.
type Sealed struct {
	KEK        string `bson:"kek"`
	DEK        []byte `bson:"dek"`
	Ciphertext []byte `bson:"ciphertext"`
}

// Release says who received the key.
type Release struct {
	Receiver string    `bson:"receiver"`
	Purpose  string    `bson:"purpose"`
	At       time.Time `bson:"at"`
}

// Key is one private key, the aggregate of this service.
type Key struct {
	OrderID       string   `bson:"order_id"`
	CertificateID string   `bson:"certificate_id"`
	Owner         string   `bson:"owner"`
	Algorithm     string   `bson:"algorithm"` // one of Algorithms
	Names         []string `bson:"names"`     // of the CSR
	CSR           []byte   `bson:"csr"`       // PKCS#10, DER
	SPKI          string   `bson:"spki"`      // hex SHA-256 of the SubjectPublicKeyInfo
	Sealed        Sealed   `bson:"sealed"`    // empty when destroyed

	State         State     `bson:"state"`
	Live          bool      `bson:"live"` // not destroyed
	VersionID     string    `bson:"version_id"`
	VersionNumber int64     `bson:"version_number"` // 0 while there is no version
	Unneeded      bool      `bson:"unneeded"`       // its version came after another had taken its place
	Releases      int64     `bson:"releases"`
	LastReleases  []Release `bson:"last_releases"`
	Signatures    int64     `bson:"signatures"` // revocation requests signed

	ReviewAt      time.Time `bson:"review_at"`  // when inventory is asked whether the key is still needed
	DestroyAt     time.Time `bson:"destroy_at"` // when it is destroyed unless inventory knows better; zero: not planned
	DestroyedAt   time.Time `bson:"destroyed_at"`
	DestroyReason string    `bson:"destroy_reason"`
	ForgetAt      time.Time `bson:"forget_at"` // when the record of a destroyed key is removed; far away while it lives
}

// Never is a moment that does not come (the store's greatest).
var Never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// Times are the periods of a key's life.
type Times struct {
	Unanswered time.Duration // a key without outcome is asked about after this
	Review     time.Duration // and a used one as often as this
	Retention  time.Duration // from the deletion of a certificate to the destruction of its keys
	Forget     time.Duration // from the destruction of a key to the removal of its record
}

// New is a key just made for an order.
func New(keyID string, r Request, csr []byte, spki string, sealed Sealed, now time.Time, t Times) (Key, []proto.Message) {
	k := Key{
		OrderID: r.OrderID, CertificateID: r.CertificateID, Owner: r.Owner, Algorithm: r.Algorithm, Names: slices.Clone(r.Names),
		CSR: csr, SPKI: spki, Sealed: sealed, State: PreActive, Live: true, ReviewAt: now.Add(t.Unanswered), ForgetAt: Never,
	}
	return k, []proto.Message{&keyeventsv1.Created{
		KeyId: keyID, OrderId: k.OrderID, CertificateId: k.CertificateID, Algorithm: k.Algorithm, SpkiSha256: k.SPKI,
	}}
}

// Ended stands for a key that was never made and never will be: its order ended first.
func Ended(orderID, certificateID, reason string, now time.Time, t Times) Key {
	return Key{
		OrderID: orderID, CertificateID: certificateID, State: Destroyed, DestroyedAt: now, DestroyReason: reason, ForgetAt: now.Add(t.Forget),
	}
}

// Due is when the worker has something to do for the key; zero: never.
func (k *Key) Due() time.Time {
	switch {
	case k.State == Destroyed:
		return time.Time{}
	case !k.DestroyAt.IsZero() && k.DestroyAt.Before(k.ReviewAt):
		return k.DestroyAt
	}
	return k.ReviewAt
}

// Version is what inventory says of the version made with a key.
type Version struct {
	ID     string
	Number int64
	// Unneeded: it came after another had taken its place.
	Unneeded bool
}

// VersionAdded records that the key's certificate became a version. It reports whether anything changed; a repeat changes nothing.
func (k *Key) VersionAdded(keyID string, v Version, now time.Time, t Times) ([]proto.Message, bool) {
	switch {
	case k.State == Destroyed, v.Unneeded && k.State != PreActive:
		return nil, false
	case v.Unneeded:
		k.State, k.Unneeded, k.VersionID, k.VersionNumber = Deactivated, true, v.ID, v.Number
		k.ReviewAt, k.DestroyAt = now.Add(t.Review), now.Add(t.Retention)
		return nil, true
	case k.State == PreActive, k.State == Deactivated && k.Unneeded:
		// One key serves all attempts of its order, so a version that counts may follow one that does not.
		if k.Unneeded {
			k.DestroyAt = time.Time{}
		}
		k.State, k.Unneeded, k.VersionID, k.VersionNumber = Active, false, v.ID, v.Number
		k.ReviewAt = now.Add(t.Review)
		return []proto.Message{&keyeventsv1.Activated{KeyId: keyID, VersionId: v.ID, CertificateId: k.CertificateID}}, true
	}
	return nil, false
}

// OrderEnded destroys a key whose order ended without a version; one that is in use stays. reason is OrderEnded or VersionRefused.
func (k *Key) OrderEnded(keyID, reason string, now time.Time, t Times) ([]proto.Message, bool) {
	if k.State != PreActive {
		return nil, false
	}
	return k.Destroy(keyID, reason, now, t)
}

// Supersede records that a newer version took the place of the key's.
func (k *Key) Supersede() bool {
	if k.State != Active {
		return false
	}
	k.State = Deactivated
	return true
}

// Compromise records that the key is known to others.
func (k *Key) Compromise() bool {
	if k.State == Destroyed || k.State == Compromised {
		return false
	}
	k.State = Compromised
	return true
}

// CertificateGone plans the destruction of a key whose certificate was deleted.
func (k *Key) CertificateGone(now time.Time, t Times) bool {
	if k.State == Destroyed || !k.DestroyAt.IsZero() {
		return false
	}
	k.DestroyAt = now.Add(t.Retention)
	return true
}

// Destroy erases the key. The same write stores the erasure and tells it.
func (k *Key) Destroy(keyID, reason string, now time.Time, t Times) ([]proto.Message, bool) {
	if k.State == Destroyed {
		return nil, false
	}
	k.State, k.Live, k.Sealed = Destroyed, false, Sealed{}
	k.DestroyedAt, k.DestroyReason, k.ForgetAt, k.DestroyAt = now, reason, now.Add(t.Forget), time.Time{}
	return []proto.Message{&keyeventsv1.Destroyed{KeyId: keyID, OrderId: k.OrderID, CertificateId: k.CertificateID, Reason: reason}}, true
}

// Released counts a release to receiver.
func (k *Key) Released(keyID, receiver, purpose string, now time.Time) []proto.Message {
	k.Releases++
	k.LastReleases = append(slices.Clone(k.LastReleases), Release{Receiver: receiver, Purpose: purpose, At: now})
	if n := len(k.LastReleases) - maxReleases; n > 0 {
		k.LastReleases = k.LastReleases[n:]
	}
	return []proto.Message{&keyeventsv1.Released{KeyId: keyID, Receiver: receiver, Purpose: purpose}}
}

// Deployable refuses to let the key out to a deployment. A pre-active key is let out: deployer and keys hear of a new version each in its own time,
// and deployer has asked inventory.
func (k *Key) Deployable(keyID string) error {
	if k.State == Compromised {
		return errs.New(errs.Precondition, "KEY_COMPROMISED",
			"the key %s is compromised and is not installed any more; a version with a new key takes its place", keyID)
	}
	return k.exists(keyID)
}

// Exportable refuses to let the key out to a person.
func (k *Key) Exportable(keyID string) error {
	if k.State == PreActive {
		return errs.New(errs.Precondition, "KEY_NOT_ACTIVE", "the order %s of the key %s has no certificate yet; export the key when it has", k.OrderID, keyID)
	}
	return k.exists(keyID)
}

// CanSign refuses to sign a revocation request. A compromised key signs: that is how its certificate is revoked.
func (k *Key) CanSign(keyID string) error { return k.exists(keyID) }

func (k *Key) exists(keyID string) error {
	if k.State == Destroyed {
		return errs.New(errs.Precondition, "KEY_DESTROYED", "the key %s was destroyed on %s (%s)", keyID, k.DestroyedAt.Format(time.RFC3339), k.DestroyReason)
	}
	return nil
}

// Status is inventory's answer about a key's version.
type Status struct {
	Known   bool // false: there is no such version
	Gone    bool // the certificate is deleted
	Version Version
}

// Reviewed settles a key with what inventory said of its version at now. It is how a fact that the bus lost reaches the key after all.
func (k *Key) Reviewed(keyID string, s Status, now time.Time, t Times) []proto.Message {
	if k.State == Destroyed || k.Due().After(now) {
		return nil
	}
	overdue := !k.DestroyAt.IsZero() && !k.DestroyAt.After(now)
	k.ReviewAt = now.Add(t.Review)
	switch {
	case k.State == PreActive && !s.Known:
		events, _ := k.Destroy(keyID, OrderEnded, now, t)
		return events
	case !s.Known || s.Gone:
		if overdue {
			events, _ := k.Destroy(keyID, CertificateDeleted, now, t)
			return events
		}
		k.CertificateGone(now, t)
		return nil
	case k.State == PreActive:
		events, _ := k.VersionAdded(keyID, s.Version, now, t)
		return events
	case k.Unneeded && s.Version.Unneeded:
		if overdue {
			events, _ := k.Destroy(keyID, Superseded, now, t)
			return events
		}
		return nil
	}
	k.DestroyAt = time.Time{}
	return nil
}

// Verdict is what becomes of a key because of a newer version of its certificate.
type Verdict struct {
	KeyID   string
	Destroy bool // else deactivated
}

// Judge says what becomes of the living keys of one certificate: the newest version's stays, the keepPrevious before it are kept for rollbacks, older
// ones are destroyed, and so is a compromised one as soon as it is not the newest.
func Judge(keys map[string]Key, keepPrevious int) []Verdict {
	var ids []string
	for id, k := range keys {
		if k.Live && !k.Unneeded && k.VersionNumber > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(keys[b].VersionNumber, keys[a].VersionNumber), cmp.Compare(b, a))
	})
	var out []Verdict
	for i, id := range ids[min(1, len(ids)):] {
		k := keys[id]
		destroy := i >= keepPrevious || k.State == Compromised
		if destroy || k.State == Active {
			out = append(out, Verdict{KeyID: id, Destroy: destroy})
		}
	}
	return out
}
