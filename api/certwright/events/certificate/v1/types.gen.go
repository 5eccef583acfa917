// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package certificateeventsv1

// The event types of this package.
const (
	// TypeRequested is the type of the event whose data is Requested.
	TypeRequested = "certificate.requested"
	// TypeSpecChanged is the type of the event whose data is SpecChanged.
	TypeSpecChanged = "certificate.spec_changed"
	// TypeDeleted is the type of the event whose data is Deleted.
	TypeDeleted = "certificate.deleted"
	// TypeRevocationRequested is the type of the event whose data is RevocationRequested.
	TypeRevocationRequested = "certificate.revocation_requested"
	// TypeVersionAdded is the type of the event whose data is VersionAdded.
	TypeVersionAdded = "certificate.version_added"
	// TypeVersionRefused is the type of the event whose data is VersionRefused.
	TypeVersionRefused = "certificate.version_refused"
	// TypeIntentClosed is the type of the event whose data is IntentClosed.
	TypeIntentClosed = "certificate.intent_closed"
	// TypeVersionRevoked is the type of the event whose data is VersionRevoked.
	TypeVersionRevoked = "certificate.version_revoked"
	// TypeRevocationFailed is the type of the event whose data is RevocationFailed.
	TypeRevocationFailed = "certificate.revocation_failed"
	// TypeIssued is the type of the event whose data is Issued.
	TypeIssued = "certificate.issued"
	// TypeRenewed is the type of the event whose data is Renewed.
	TypeRenewed = "certificate.renewed"
)
