// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package dnseventsv1

// The event types of this package.
const (
	// TypeRecordPresented is the type of the event whose data is RecordPresented.
	TypeRecordPresented = "dns.record_presented"
	// TypeRecordFailed is the type of the event whose data is RecordFailed.
	TypeRecordFailed = "dns.record_failed"
	// TypeRecordRemoved is the type of the event whose data is RecordRemoved.
	TypeRecordRemoved = "dns.record_removed"
)
