// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package keyeventsv1

// The event types of this package.
const (
	// TypeCreated is the type of the event whose data is Created.
	TypeCreated = "key.created"
	// TypeActivated is the type of the event whose data is Activated.
	TypeActivated = "key.activated"
	// TypeReleased is the type of the event whose data is Released.
	TypeReleased = "key.released"
	// TypeDestroyed is the type of the event whose data is Destroyed.
	TypeDestroyed = "key.destroyed"
)
