package domain

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// Why a binding was detached.
const (
	ByUser             = "user"
	CertificateDeleted = "certificate_deleted"
	OtherTeam          = "other_team"
	TargetDeleted      = "target_deleted"
)

// Binding says that a target serves a certificate.
type Binding struct {
	CertificateID    string    `bson:"certificate_id"`
	TargetID         string    `bson:"target_id"`
	Owner            string    `bson:"owner"`
	Slot             string    `bson:"slot"` // unique: the target's id while attached, since its files hold one certificate; else the own id
	Attached         bool      `bson:"attached"`
	DetachReason     string    `bson:"detach_reason"`
	DesiredVersionID string    `bson:"desired_version_id"`
	DesiredNumber    int64     `bson:"desired_number"`
	Generation       int64     `bson:"generation"` // +1 with each version wanted; never falls
	ServedVersionID  string    `bson:"served_version_id"`
	ServedGeneration int64     `bson:"served_generation"`
	Resolve          bool      `bson:"resolve"`  // inventory is to be asked for the current version
	Dispatch         bool      `bson:"dispatch"` // the deployment of Generation is to be made, or, when detached, open ones ended
	NextAt           time.Time `bson:"next_at"`
	ForgetAt         time.Time `bson:"forget_at"`
}

// NewBinding attaches a certificate to a target.
func NewBinding(certificateID, targetID, owner string, now time.Time) Binding {
	return Binding{
		CertificateID: certificateID, TargetID: targetID, Owner: owner, Slot: targetID, Attached: true, Resolve: true, NextAt: now, ForgetAt: Never,
	}
}

// Due is when the worker has something to do; zero: never.
func (b *Binding) Due() time.Time {
	if b.Resolve || b.Dispatch {
		return b.NextAt
	}
	return time.Time{}
}

// Attach attaches a detached binding again. Its generation goes on, since the host refuses to go back.
func (b *Binding) Attach(owner string, now time.Time) bool {
	if b.Attached {
		return false
	}
	b.Attached, b.Slot, b.DetachReason, b.Owner = true, b.TargetID, "", owner
	b.DesiredVersionID, b.DesiredNumber, b.Resolve, b.Dispatch, b.NextAt, b.ForgetAt = "", 0, true, false, now, Never
	return true
}

// Detach ends the binding; the files stay. Only the binding of a deleted certificate is forgotten: another one may be attached again.
func (b *Binding) Detach(bindingID, reason string, now, forget time.Time) bool {
	if !b.Attached {
		return false
	}
	b.Attached, b.Slot, b.DetachReason, b.Resolve, b.Dispatch, b.NextAt = false, bindingID, reason, false, true, now
	if reason == CertificateDeleted {
		b.ForgetAt = forget
	}
	return true
}

// Desire makes a version the wanted one, unless a newer one is wanted already.
func (b *Binding) Desire(versionID string, number int64, now time.Time) bool {
	if !b.Attached || number <= b.DesiredNumber {
		return false
	}
	b.DesiredVersionID, b.DesiredNumber = versionID, number
	b.Generation++
	b.Dispatch, b.NextAt = true, now
	return true
}

// Outrun starts a new generation above one that was found on the host: this store has been recovered from a backup.
func (b *Binding) Outrun(found int64, now time.Time) bool {
	if !b.Attached || b.Generation > found {
		return false
	}
	b.Generation = found + 1
	b.Dispatch, b.NextAt = true, now
	return true
}

// Dispatched records that the deployment of a generation exists.
func (b *Binding) Dispatched(generation int64) bool {
	if !b.Dispatch || b.Generation != generation {
		return false
	}
	b.Dispatch = false
	return true
}

// Resolved records that inventory was asked.
func (b *Binding) Resolved() { b.Resolve = false }

// Served records what is seen to be served.
func (b *Binding) Served(versionID string, generation int64) bool {
	if generation <= b.ServedGeneration {
		return false
	}
	b.ServedVersionID, b.ServedGeneration = versionID, generation
	return true
}

// BindingID is the id of the binding of a certificate and a target; it begins with the certificate's time, as all ids do with some time.
func BindingID(certificateID, targetID string) string {
	return "bnd_" + derived(certificateID, certificateID, targetID, 0)
}

// DeploymentID is the id of the deployment of one generation of a binding.
func DeploymentID(bindingID string, generation int64) string {
	return "dep_" + derived(bindingID, bindingID, "", generation)
}

// derived is 26 characters of Crockford's base 32: the first ten (the time) of like's ULID, and 80 bits of a hash.
func derived(like, a, b string, n int64) string {
	h := sha256.New()
	for _, s := range []string{a, b} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		_, _ = h.Write([]byte(s))
	}
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) //nolint:gosec // a generation is not negative
	crockford := base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)
	_, ulid, _ := strings.Cut(like, "_")
	moment := "0000000000"
	if len(ulid) == 26 {
		moment = ulid[:10]
	}
	return moment + crockford.EncodeToString(h.Sum(nil)[:10])
}
