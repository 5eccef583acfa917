// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package renewaleventsv1

// The event types of this package.
const (
	// TypePlanned is the type of the event whose data is Planned.
	TypePlanned = "renewal.planned"
	// TypeHeld is the type of the event whose data is Held.
	TypeHeld = "renewal.held"
	// TypeDue is the type of the event whose data is Due.
	TypeDue = "renewal.due"
	// TypeOverdue is the type of the event whose data is Overdue.
	TypeOverdue = "renewal.overdue"
	// TypeExpiring is the type of the event whose data is Expiring.
	TypeExpiring = "renewal.expiring"
	// TypeExpired is the type of the event whose data is Expired.
	TypeExpired = "renewal.expired"
	// TypeWindowMoved is the type of the event whose data is WindowMoved.
	TypeWindowMoved = "renewal.window_moved"
)
