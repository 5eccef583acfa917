package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheTailConnectsAgainWhereItWas(t *testing.T) {
	e := newEdge(t)
	var asked []string
	e.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-ID")+"|"+r.URL.RawQuery)
		tell := func(seq int) {
			fmt.Fprintf(w, "id: E-%d\nevent: certificate.issued\ndata: {\"id\":\"e%d\",\"type\":\"certificate.issued\",\"subject\":\"crt_%d\",\"time\":\"2026-03-01T21:00:00.000Z\",\"team\":\"default\",\"revision\":1,\"data\":{\"a\":1}}\n\n", seq, seq, seq)
		}
		switch len(asked) {
		case 1:
			fmt.Fprint(w, "retry: 2000\n\n: alive\n\n")
			tell(1)
			fmt.Fprint(w, "id: E-5\n\n") // a bare position
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"code":14,"message":"starting"}`)
		default:
			fmt.Fprint(w, "event: resync\ndata: {}\n\n")
			tell(6)
			tell(7)
		}
	})
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("events", "tail", "--types", "certificate.issued,certificate.renewed", "--since", "E-0", "--count", "2", "--output", "json"), u.err.String())
	require.Equal(t, []string{"E-0|types=certificate.issued%2Ccertificate.renewed", "E-5|types=certificate.issued%2Ccertificate.renewed", "E-5|types=certificate.issued%2Ccertificate.renewed"}, asked)
	golden(t, "events.json", u.out.String())
	require.Contains(t, u.err.String(), "connected again")
	require.Contains(t, u.err.String(), "resync: events may be missing")

	asked = nil
	require.Equal(t, ExitOK, u.run("events", "tail", "--count", "1"))
	require.Equal(t, "2026-03-01T21:00:00.000Z  certificate.issued                crt_1  default\n", u.out.String())
}

func TestATailThatIsRefusedEnds(t *testing.T) {
	e := newEdge(t)
	e.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"code":3,"message":"there is no event type","details":[{"@type":"type.googleapis.com/unknown.Thing"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"EVENT_TYPE_UNKNOWN","domain":"certwright"}]}`)
	})
	u := newUser(t, e)
	require.Equal(t, ExitRefused, u.run("events", "tail", "--types", "x.y"))
	require.Equal(t, "error: there is no event type\n  reason: EVENT_TYPE_UNKNOWN\n", u.err.String(), "unknown details are skipped")
}

func TestTextsOfOthersCannotCommandTheTerminal(t *testing.T) {
	require.Equal(t, "a\uFFFD[31mb c d", printable("a\x1b[31mb\nc\td"))
	require.Equal(t, "münchen ✓", printable("münchen ✓"))
	require.False(t, strings.ContainsRune(printable("\u202e\u009b"), '\u009b'))
}
