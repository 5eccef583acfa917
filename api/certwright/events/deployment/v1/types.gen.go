// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package deploymenteventsv1

// The event types of this package.
const (
	// TypeStarted is the type of the event whose data is Started.
	TypeStarted = "deployment.started"
	// TypeSucceeded is the type of the event whose data is Succeeded.
	TypeSucceeded = "deployment.succeeded"
	// TypeFailed is the type of the event whose data is Failed.
	TypeFailed = "deployment.failed"
	// TypeRolledBack is the type of the event whose data is RolledBack.
	TypeRolledBack = "deployment.rolled_back"
	// TypeStuck is the type of the event whose data is Stuck.
	TypeStuck = "deployment.stuck"
)
