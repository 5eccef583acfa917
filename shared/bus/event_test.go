package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123_000_000, time.UTC)

func deleted(t *testing.T, id, aggregate string) bus.Event {
	t.Helper()
	m := &certificateeventsv1.Deleted{CertificateId: aggregate, Owner: "ann"}
	data, err := protojson.Marshal(m)
	require.NoError(t, err)
	return bus.Event{
		ID: id, Type: bus.TypeOf(m), Source: "inventory", Subject: aggregate, Time: noon, Revision: 7, Epoch: "01J", CorrelationID: "corr",
		CausationID: "cause", Team: "default", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Data: data,
	}
}

func TestTypeOf(t *testing.T) {
	require.Equal(t, "certificate.deleted", bus.TypeOf(&certificateeventsv1.Deleted{}))
	require.Empty(t, bus.TypeOf(&emptypb.Empty{}), "a message that is no event has no type")
	require.Empty(t, bus.TypeOf(nil))
}

func TestAnEventSurvivesTheOutbox(t *testing.T) {
	e := deleted(t, "crt_1-01J-7-0", "crt_1")
	entry := e.Entry()
	require.Equal(t, "certwright.events.certificate.deleted.crt_1", entry.Subject)
	require.Equal(t, e.ID, entry.MsgID)
	require.Equal(t, docstore.EntryEvent, entry.Kind)
	for name := range entry.Headers {
		require.NotContains(t, name, ".")
		require.NotContains(t, name, "$")
		require.Regexp(t, "^[a-z-]+$", name)
	}
	back, err := bus.FromEntry(entry)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(e, back))
}

func TestFromEntryRefuses(t *testing.T) {
	for _, row := range []struct{ name, header, value string }{
		{"an event without id", "ce-id", ""},
		{"an event without type", "ce-type", ""},
		{"an event without source", "ce-source", ""},
		{"an event without subject", "ce-subject", ""},
		{"another version of CloudEvents", "ce-specversion", "0.3"},
		{"a time that is none", "ce-time", "yesterday"},
		{"a revision that is none", "ce-revision", "x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			entry := deleted(t, "a", "b").Entry()
			entry.Headers[row.header] = row.value
			_, err := bus.FromEntry(entry)
			require.Equal(t, errs.Invalid, errs.KindOf(err), "%v", err)
			require.ErrorContains(t, err, row.header)
		})
	}
}

func TestDecode(t *testing.T) {
	e := deleted(t, "a", "crt_1")
	var m certificateeventsv1.Deleted
	require.NoError(t, e.Decode(&m))
	require.Equal(t, "crt_1", m.GetCertificateId())

	e.Data = []byte(`{"certificateId":"crt_2","aFieldOfNextYear":{"x":1}}`)
	require.NoError(t, e.Decode(&m), "unknown fields are ignored")
	require.Equal(t, "crt_2", m.GetCertificateId())

	require.Equal(t, errs.Invalid, errs.KindOf(e.Decode(&certificateeventsv1.Requested{})), "another type")
	e.Data = []byte(`{`)
	require.Equal(t, errs.Invalid, errs.KindOf(e.Decode(&m)), "no JSON")
}

func TestCauseIsAbsentOutsideOfHandlers(t *testing.T) {
	_, ok := bus.Cause(context.Background())
	require.False(t, ok)
}
