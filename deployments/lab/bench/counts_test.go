package bench_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/bench"
)

// What one http-01 certificate may cost, one at a time, from the API call until everybody has heard of it. A change that raises a bound says in
// its commit why the certificate is worth it; one that lowers a count lowers the bound.
var (
	boundWrites = map[string]float64{
		"inventory/certificates": 6, "inventory/versions": 1, "orders/orders": 7, "keys/keys": 2, "challenges/challenges": 3,
		"renewals/plans": 3, "identity/audit": 2,
	}
	boundMessages = map[string]float64{
		"certificate.requested": 1, "certificate.version_added": 1, "certificate.issued": 1, "certificate.intent_closed": 1,
		"order.accepted": 1, "order.authorization_required": 1, "order.authorization_closed": 1, "order.issued": 1,
		"challenge.presented": 1, "key.created": 1, "key.activated": 1, "renewal.planned": 3,
	}
	boundCalls = map[string]float64{
		"/certwright.inventory.v1.InventoryService/CreateCertificate": 1, "/certwright.orders.v1.OrdersService/GetIssuer": 1,
		"/certwright.keys.v1.KeysService/EnsureCSR": 1, "/certwright.orders.v1.OrdersService/GetRenewalInfo": 1,
		"/certwright.identity.v1.IdentityService/Append": 2, "/certwright.identity.v1.IdentityService/Authenticate": 1,
	}
	// The order is polled for as long as a slow machine takes to validate; how often is not the platform's doing.
	boundCA = map[string]float64{
		"newOrder": 1, "authz": 1, "challenge": 1, "order": 12, "finalize": 1, "certificate": 1, "renewalInfo": 1, "newNonce": 1,
	}
)

const (
	boundHandled = 16 // deliveries to all consumers
	boundSyncs   = 27 // one for each write that nobody else wanted at that moment, and the clearing of outboxes
)

// slack is for what happens now and then beside certificates, such as the clearing of outboxes.
const slack = 0.7

func TestWhatACertificateCostsDoesNotGrow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, err := bench.Start(ctx, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	c, err := b.PerCertificate(ctx, 10, 1)
	require.NoError(t, err)
	for _, row := range []struct {
		name          string
		counts, bound map[string]float64
	}{
		{"writes of each collection", c.Writes, boundWrites},
		{"facts of each type", c.Messages, boundMessages},
		{"gRPC calls of each method", c.Calls, boundCalls},
		{"requests to each of the CA's endpoints", c.CA, boundCA},
		{"deliveries to all consumers", map[string]float64{"all": bench.Sum(c.Handled)}, map[string]float64{"all": boundHandled}},
		{"disk syncs", map[string]float64{"all": bench.Sum(c.Syncs)}, map[string]float64{"all": boundSyncs}},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NotEmpty(t, row.counts, "nothing was counted")
			for name := range maps.Keys(row.counts) {
				if row.counts[name] < slack && row.bound[name] == 0 {
					continue // now and then
				}
				require.LessOrEqual(t, row.counts[name], row.bound[name]+slack, "%s", name)
			}
		})
	}
	// A certificate that costs nothing was not counted.
	for _, name := range []string{"inventory/certificates", "orders/orders", "keys/keys", "challenges/challenges", "renewals/plans"} {
		require.GreaterOrEqual(t, c.Writes[name], 1.0, "%s", name)
	}
	require.InDelta(t, 1, c.Messages["certificate.issued"], 0.01)
	require.InDelta(t, 1, c.CA["finalize"], 0.01)
	require.InDelta(t, 1, c.Calls["/certwright.keys.v1.KeysService/EnsureCSR"], 0.01)
}
