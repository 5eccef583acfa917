// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package revocationeventsv1

// The event types of this package.
const (
	// TypeDone is the type of the event whose data is Done.
	TypeDone = "revocation.done"
	// TypeFailed is the type of the event whose data is Failed.
	TypeFailed = "revocation.failed"
)
