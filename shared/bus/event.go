package bus

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// The CloudEvents attributes as header names (binary mode: CloudEvents 1.0, NATS protocol binding 1.0, §3.1). All are lower
// case and free of '.' and '$', so that a store can keep them as keys.
const (
	headerSpecVersion   = "ce-specversion"
	headerID            = "ce-id"
	headerType          = "ce-type"
	headerSource        = "ce-source"
	headerSubject       = "ce-subject"
	headerTime          = "ce-time"
	headerRevision      = "ce-revision"
	headerEpoch         = "ce-epoch"
	headerCorrelationID = "ce-correlationid"
	headerCausationID   = "ce-causationid"
	headerTeam          = "ce-team"
	headerTraceparent   = "traceparent"
	headerContentType   = "content-type"

	specVersion = "1.0"
	contentType = "application/protobuf+json"

	eventSubjects = "certwright.events"
	timeFormat    = "2006-01-02T15:04:05.000Z07:00"
)

// Event is a fact as it travels.
type Event struct {
	ID            string    // <aggregate id>-<store epoch>-<revision>-<n>; the same each time the fact is told
	Type          string    // e.g. "certificate.issued"
	Source        string    // the service that tells it
	Subject       string    // the aggregate's id
	Time          time.Time // when the fact became true; UTC, milliseconds
	Revision      int64     // of the aggregate, in the write that made the fact true
	Epoch         string    // of the store that Revision counts in
	CorrelationID string    // of the first cause; empty when unknown
	CausationID   string    // ID of the event that caused this one; empty when a person or the clock did
	Team          string
	Traceparent   string // W3C trace context; empty when not traced
	Data          []byte // protobuf JSON of one message of certwright/events/<context>/v1

	// Filled on receipt only.
	Sequence    uint64 // in the stream
	StreamEpoch string // see Bus.StreamEpoch
	Redelivered int    // 0 at the first delivery to this consumer
}

// TypeOf returns the event type that m declares by the option certwright.options.v1.event, or "" when it declares none.
func TypeOf(m proto.Message) string {
	if m == nil {
		return ""
	}
	options, ok := proto.GetExtension(m.ProtoReflect().Descriptor().Options(), optionsv1.E_Event).(*optionsv1.EventOptions)
	if !ok {
		return ""
	}
	return options.GetType()
}

// Decode reads Data into m and ignores fields that m does not know. It is Invalid when the event's type is not m's, or Data is not m.
func (e Event) Decode(m proto.Message) error {
	if want := TypeOf(m); want != e.Type {
		return errs.New(errs.Invalid, "EVENT_TYPE_MISMATCH", "event %s is a %q, not a %q", e.ID, e.Type, want)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(e.Data, m); err != nil {
		return errs.New(errs.Invalid, "EVENT_MALFORMED", "event %s of type %s: %w", e.ID, e.Type, err)
	}
	return nil
}

// Entry is the event as an outbox entry, to be told for the first time: the message id is the event's.
func (e Event) Entry() docstore.Entry {
	h := map[string]string{
		headerSpecVersion: specVersion,
		headerContentType: contentType,
		headerID:          e.ID,
		headerType:        e.Type,
		headerSource:      e.Source,
		headerSubject:     e.Subject,
		headerTime:        e.Time.UTC().Format(timeFormat),
		headerRevision:    strconv.FormatInt(e.Revision, 10),
	}
	for name, value := range map[string]string{
		headerEpoch: e.Epoch, headerCorrelationID: e.CorrelationID, headerCausationID: e.CausationID, headerTeam: e.Team,
		headerTraceparent: e.Traceparent,
	} {
		if value != "" {
			h[name] = value
		}
	}
	return docstore.Entry{
		ID: e.ID, Kind: docstore.EntryEvent, Subject: eventSubject(e.Type, e.Subject), Headers: h, Data: e.Data, MsgID: e.ID, At: e.Time,
	}
}

// FromEntry reads an event back from an outbox entry. It is Invalid when a required header is missing or malformed.
func FromEntry(entry docstore.Entry) (Event, error) {
	get := func(name string) string { return entry.Headers[name] }
	e := Event{
		ID: get(headerID), Type: get(headerType), Source: get(headerSource), Subject: get(headerSubject), Epoch: get(headerEpoch),
		CorrelationID: get(headerCorrelationID), CausationID: get(headerCausationID), Team: get(headerTeam),
		Traceparent: get(headerTraceparent), Data: entry.Data,
	}
	if v := get(headerSpecVersion); v != specVersion {
		return e, malformed(headerSpecVersion, v)
	}
	for _, name := range []string{headerID, headerType, headerSource, headerSubject} {
		if get(name) == "" {
			return e, malformed(name, "")
		}
	}
	at, err := time.Parse(time.RFC3339Nano, get(headerTime))
	if err != nil {
		return e, malformed(headerTime, get(headerTime))
	}
	e.Time = clock.Normal(at)
	if e.Revision, err = strconv.ParseInt(get(headerRevision), 10, 64); err != nil {
		return e, malformed(headerRevision, get(headerRevision))
	}
	return e, nil
}

func malformed(header, value string) error {
	return errs.New(errs.Invalid, "EVENT_MALFORMED", "event header %s is %q", header, value)
}

var validType = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)

// eventSubject is certwright.events.<type>.<aggregate id>.
func eventSubject(eventType, aggregate string) string {
	return eventSubjects + "." + eventType + "." + token(aggregate)
}

// filters are the subjects of these event types; every event when there are none.
func filters(types []string) []string {
	if len(types) == 0 {
		return []string{eventSubjects + ".>"}
	}
	subjects := make([]string, len(types))
	for i, t := range types {
		subjects[i] = eventSubjects + "." + t + ".>"
	}
	return subjects
}

// token makes one subject token of s: what a subject gives a meaning to becomes '_'.
func token(s string) string {
	if s == "" {
		return "_"
	}
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '*' || r == '>' || r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, s)
}

type causeKey struct{}

func withCause(ctx context.Context, e Event) context.Context {
	return context.WithValue(ctx, causeKey{}, e)
}

// Cause returns the event whose handler ctx was given to. It is how a fact learns what caused it.
func Cause(ctx context.Context) (Event, bool) {
	e, ok := ctx.Value(causeKey{}).(Event)
	return e, ok
}
