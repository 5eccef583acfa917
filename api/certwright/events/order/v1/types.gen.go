// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package ordereventsv1

// The event types of this package.
const (
	// TypeAccepted is the type of the event whose data is Accepted.
	TypeAccepted = "order.accepted"
	// TypeIssued is the type of the event whose data is Issued.
	TypeIssued = "order.issued"
	// TypeFailed is the type of the event whose data is Failed.
	TypeFailed = "order.failed"
	// TypeRejected is the type of the event whose data is Rejected.
	TypeRejected = "order.rejected"
	// TypeCancelled is the type of the event whose data is Cancelled.
	TypeCancelled = "order.cancelled"
	// TypeBlocked is the type of the event whose data is Blocked.
	TypeBlocked = "order.blocked"
	// TypeUnblocked is the type of the event whose data is Unblocked.
	TypeUnblocked = "order.unblocked"
	// TypeAuthorizationRequired is the type of the event whose data is AuthorizationRequired.
	TypeAuthorizationRequired = "order.authorization_required"
	// TypeAuthorizationClosed is the type of the event whose data is AuthorizationClosed.
	TypeAuthorizationClosed = "order.authorization_closed"
)
