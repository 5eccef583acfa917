package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
)

func TestALimitIsGivenOnTheCommandLine(t *testing.T) {
	got, err := parseLimit("orders_per_account=300/3h,ari,renewal")
	require.NoError(t, err)
	want := &ordersv1.IssuerLimit{Kind: "orders_per_account", Capacity: 300, Period: durationpb.New(3 * time.Hour), Exempt: []string{"ari", "renewal"}}
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
	for _, bad := range []string{"", "orders_per_account", "orders_per_account=3", "orders_per_account=3/day", "=3/1h", "orders_per_account=x/1h"} {
		_, err := parseLimit(bad)
		require.ErrorContains(t, err, "give it as kind=capacity/period[,exempt], such as orders_per_account=300/3h,ari,renewal", "%q", bad)
	}
}

func TestABudgetIsATable(t *testing.T) {
	var out, errOut strings.Builder
	a := &app{}
	a.Err = &errOut
	at := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	require.NoError(t, a.writeBudget(&out, &ordersv1.GetIssuerBudgetResponse{
		Limits: []*ordersv1.IssuerLimit{{}},
		Budgets: []*ordersv1.IssuerBudget{
			{Kind: "orders_per_account", Capacity: 300, Left: 300, Period: durationpb.New(3 * time.Hour)},
			{Kind: "certificates_per_exact_set", Scope: "ab12", Names: []string{"a.example.org", "b.example.org"}, Capacity: 5, Period: durationpb.New(168 * time.Hour), NextTime: at, FullTime: at, Waiting: 2},
		},
	}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 3)
	require.Equal(t, []string{"LIMIT", "OF", "LEFT", "IN", "NEXT", "ORDER", "FULL", "WAITING"}, strings.Fields(lines[0]))
	require.Equal(t, []string{"orders_per_account", "-", "300", "of", "300", "3h", "now", "-", "-"}, strings.Fields(lines[1]))
	require.Contains(t, lines[2], "0 of 5")
	require.Contains(t, lines[2], "168h")
	require.Contains(t, lines[2], "2026-03-01T12:00:00Z")
	require.NoError(t, a.writeBudget(&out, &ordersv1.GetIssuerBudgetResponse{}))
	require.Contains(t, errOut.String(), "no limits")
}
