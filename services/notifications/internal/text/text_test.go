package text_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/text"
	"github.com/certwright/certwright/shared/errs"
)

var update = flag.Bool("update", false, "write the golden files")

var at = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

func day(n int) *timestamppb.Timestamp { return timestamppb.New(at.AddDate(0, 0, n)) }

// samples has one event of every type that people are told of. Names and details are hostile where a user or a CA writes them.
func samples() []proto.Message {
	v := &typesv1.VersionFacts{
		VersionId: "ver_02", Number: 2, OrderId: "ord_02", Names: []string{"www.example.org", "example.org", "shop.example.org"}, NotBefore: day(0), NotAfter: day(90),
		Serial: "0a1b2c", FingerprintSha256: strings.Repeat("ab", 32), IssuerName: "CN=Example CA <R1>",
	}
	p := &typesv1.Problem{
		Reason: "CA_REFUSED", Detail: "CAA forbids issuance\r\nBcc: everybody@example.org <script>alert(1)</script>", Type: "urn:ietf:params:acme:error:caa",
		Subproblems: []*typesv1.Subproblem{{Identifier: "shop.example.org", Type: "urn:ietf:params:acme:error:caa", Detail: "no CAA record allows it"}},
	}
	s := &deploymenteventsv1.Subject{
		DeploymentId: "dep_02", BindingId: "bnd_01", TargetId: "tgt_01", CertificateId: "crt_01", VersionId: "ver_02", Generation: 2, Owner: "jane@example.org",
	}
	const owner = "jane@example.org"
	return []proto.Message{
		&certificateeventsv1.Issued{CertificateId: "crt_01", Version: v, Owner: owner},
		&certificateeventsv1.Renewed{CertificateId: "crt_01", Version: v, ReplacesVersionId: "ver_01", Owner: owner, ReplacedNotAfter: day(20)},
		&certificateeventsv1.VersionRevoked{CertificateId: "crt_01", Version: v, Reason: "keyCompromise", Current: true, Owner: owner},
		&certificateeventsv1.RevocationFailed{CertificateId: "crt_01", VersionId: "ver_02", Problem: p, Owner: owner},
		&ordereventsv1.Failed{OrderId: "ord_02", CertificateId: "crt_01", IntentNumber: 2, Problem: p, Names: []string{"www.example.org"}, Owner: owner},
		&ordereventsv1.Blocked{OrderId: "ord_02", CertificateId: "crt_01", Problem: p, RetryAt: day(1), Owner: owner},
		&challengeeventsv1.ActionRequired{
			ChallengeId: "chl_01", OrderId: "ord_02", Type: "dns-01", Location: "_acme-challenge.www.example.org", Value: "Zm9vYmFy", Owner: owner,
		},
		&renewaleventsv1.Expiring{CertificateId: "crt_01", VersionId: "ver_01", Names: []string{"www.example.org"}, NotAfter: day(14), Threshold: "P14D", Owner: owner},
		&renewaleventsv1.Expired{CertificateId: "crt_01", VersionId: "ver_01", Names: []string{"www.example.org"}, NotAfter: day(0), Owner: owner},
		&renewaleventsv1.Overdue{CertificateId: "crt_01", VersionId: "ver_01", NotAfter: day(10), WasDueAt: day(-1), Owner: owner},
		&renewaleventsv1.Held{CertificateId: "crt_01", VersionId: "ver_01", IntentNumber: 2, Reason: "rejected", ReviewAt: day(7), Owner: owner},
		&deploymenteventsv1.Failed{Subject: s, Problem: p, RetryAt: day(1)},
		&deploymenteventsv1.RolledBack{Subject: s, Problem: p, RetryAt: day(1)},
		&deploymenteventsv1.Stuck{Subject: s, Problem: p, RetryAt: day(1)},
	}
}

func event(t *testing.T, m proto.Message) text.Event {
	t.Helper()
	data, err := protojson.Marshal(m)
	require.NoError(t, err)
	return text.Event{ID: "crt_01-E-7-0", Type: events.TypeOf(m), Time: at, Data: data}
}

func TestEveryMessageIsAsAgreed(t *testing.T) {
	var seen []string
	for _, m := range samples() {
		e := event(t, m)
		seen = append(seen, e.Type)
		t.Run(e.Type, func(t *testing.T) {
			got, err := text.Write(e)
			require.NoError(t, err)
			require.Equal(t, "jane@example.org", text.Owner(m))
			require.True(t, strings.HasPrefix(got.Subject, "[certwright] "))
			require.NotContains(t, got.Subject+got.Text, "\r")
			require.NotContains(t, got.Text, "\nBcc:")
			require.NotContains(t, got.HTML, "<script>")
			require.Contains(t, got.Text, "\n    certwright ", "a command to run")
			golden(t, e.Type, "Subject: "+got.Subject+"\n\n"+got.Text+"\n=== html ===\n"+got.HTML)
		})
	}
	require.Empty(t, cmp.Diff(domain.EventTypes(), seen), "every type that people are told of has its words here")
}

func TestTheTestMessageIsAsAgreed(t *testing.T) {
	got := text.Test("chn_01", "Operations <b>", at)
	golden(t, "test", "Subject: "+got.Subject+"\n\n"+got.Text+"\n=== html ===\n"+got.HTML)
}

func TestEmptyEventsStillMakeMessages(t *testing.T) {
	for _, typ := range domain.EventTypes() {
		got, err := text.Write(text.Event{ID: "x", Type: typ, Time: at, Data: []byte(`{"addedLater": 1}`)})
		require.NoError(t, err, typ)
		require.NotContains(t, got.Text, "1970", typ)
	}
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	for name, e := range map[string]text.Event{
		"an unknown type":            {Type: "certificate.eaten", Data: []byte("{}")},
		"data of another shape":      {Type: "certificate.issued", Data: []byte("[]")},
		"a type that is for no ears": {Type: "order.accepted", Data: []byte("{}")},
	} {
		_, err := text.Write(e)
		require.Equal(t, domain.ReasonEventUnreadable, errs.ReasonOf(err), name)
		require.Equal(t, errs.Invalid, errs.KindOf(err), name)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run: go test ./internal/text -update")
	require.Empty(t, cmp.Diff(string(want), got))
}
