package system_test

import (
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// troubleOnly are the counters that are not there until something went wrong.
var troubleOnly = []string{"certwright_bus_dead_letters_total", "certwright_outbox_parked_total", "certwright_outbox_unanswered_total", "certwright_orders_budget_refused_total"}

// The metrics that the alert rules name are those that a running platform shows, and after a run without trouble those of trouble are not among them.
func TestTheMetricsOfTheAlertsAreThere(t *testing.T) {
	rules, err := os.ReadFile("../../prometheus/rules.yml")
	require.NoError(t, err)
	named := map[string]bool{}
	for _, m := range regexp.MustCompile(`\b(certwright_[a-z_]+|http_server_[a-z_]+)`).FindAllString(string(rules), -1) {
		named[m] = true
	}
	require.Greater(t, len(named), 6)

	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, time.Minute)
	require.NoError(t, s.Channels(ctx))
	target, err := s.Target(ctx, "web server")
	require.NoError(t, err)
	made, err := s.Request(ctx, issuer.GetId(), "http-01", []string{target.GetId()}, "www.shop.test")
	require.NoError(t, err)
	got, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	planned(ctx, t, s, made.GetId(), got.GetCurrentVersion().GetFacts().GetVersionId())
	require.NoError(t, stage.Until(ctx, s, "/v1/deliveries", &notificationsv1.ListDeliveriesResponse{}, func(l *notificationsv1.ListDeliveriesResponse) bool {
		return len(l.GetDeliveries()) > 0 && l.GetDeliveries()[0].GetState() == "delivered"
	}))

	scrape, err := s.Raw(ctx, http.MethodGet, "/metrics", nil)
	require.NoError(t, err)
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+)[{ ]`).FindAllStringSubmatch(string(scrape), -1) {
		shown[m[1]] = true
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if slices.Contains(troubleOnly, name) {
			require.False(t, shown[name], "%s counts although nothing went wrong", name)
			continue
		}
		require.True(t, shown[name], "the rules name %s, which is not in a scrape", name)
	}
	declared := ""
	for _, file := range []string{"../../../shared/bus/metrics.go", "../../../shared/outbox/relay.go", "../../../services/orders/internal/app/admit.go"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		declared += string(text)
	}
	for _, name := range troubleOnly { // certwright.bus.dead_letters is shown as certwright_bus_dead_letters_total
		parts := strings.SplitN(strings.TrimSuffix(name, "_total"), "_", 3)
		require.Contains(t, declared, `Int64Counter("`+strings.Join(parts, ".")+`"`)
	}
	for _, label := range []string{`lane="events"`, `type="certificate.requested"`, `outcome="done"`, `http_response_status_code="200"`, `otel_scope_name="orders"`, `consumer="orders-saga"`} {
		require.Contains(t, string(scrape), label, "the rules pick by this label")
	}
}
