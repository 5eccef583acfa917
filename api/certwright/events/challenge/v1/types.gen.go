// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package challengeeventsv1

// The event types of this package.
const (
	// TypePresented is the type of the event whose data is Presented.
	TypePresented = "challenge.presented"
	// TypeActionRequired is the type of the event whose data is ActionRequired.
	TypeActionRequired = "challenge.action_required"
	// TypeFailed is the type of the event whose data is Failed.
	TypeFailed = "challenge.failed"
	// TypeRecordWanted is the type of the event whose data is RecordWanted.
	TypeRecordWanted = "challenge.record_wanted"
	// TypeRecordUnwanted is the type of the event whose data is RecordUnwanted.
	TypeRecordUnwanted = "challenge.record_unwanted"
)
