package grpc

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/rpc"
)

// GetIssuerBudget implements the RPC.
func (s *Server) GetIssuerBudget(ctx context.Context, r *ordersv1.GetIssuerBudgetRequest) (*ordersv1.GetIssuerBudgetResponse, error) {
	found, err := s.App.GetIssuerBudget(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &ordersv1.GetIssuerBudgetResponse{NextPageToken: found.Next, Limits: app.LimitMessages(found.Limits)}
	for _, b := range found.Budgets {
		m := &ordersv1.IssuerBudget{
			Kind: string(b.Kind), Scope: b.Scope, Capacity: b.Limit.Capacity, Period: durationpb.New(b.Limit.Period), Left: b.Left(b.Limit, b.Now),
			NextTime: rpc.Stamp(b.NextAt(b.Limit, b.Now)), Reserved: int64(len(b.Holds)), Waiting: int64(len(b.Waiting)),
		}
		if b.Kind == domain.PerExactSet {
			m.Names = b.Names
		}
		if b.IdleAt.After(b.Now) {
			m.FullTime = rpc.Stamp(b.IdleAt)
		}
		if b.ClosedUntil.After(b.Now) {
			m.ClosedUntilTime = rpc.Stamp(b.ClosedUntil)
		}
		out.Budgets = append(out.Budgets, m)
	}
	return out, nil
}
