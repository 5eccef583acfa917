package app

import (
	"context"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/heal"
)

// ReadOrders reads what changed at orders since the cursor and gives every key its order's outcome, which the bus may have lost. No outcome leaves a record
// here: an order that is not told of any more asks for no CSR.
func (a *App) ReadOrders(ctx context.Context, cursor string) (heal.Page, error) {
	res, err := a.Orders.ListChanges(ctx, &ordersv1.ListChangesRequest{AfterCursor: cursor, PageSize: 500})
	if err != nil {
		return heal.Page{}, err
	}
	for _, c := range res.GetChanges() {
		o := c.GetOrder()
		switch o.GetState() {
		case "failed", "rejected", "cancelled":
			err = ignoreNotFound(a.orderEnded(ctx, KeyID(o.GetId()), domain.OrderEnded))
		case "issued":
			err = a.issued(ctx, o)
		}
		if err != nil {
			return heal.Page{}, err
		}
	}
	return heal.Page{Next: res.GetNextCursor(), More: res.GetMore(), Restarted: res.GetRestarted()}, nil
}

func (a *App) issued(ctx context.Context, o *ordersv1.Order) error {
	keyID := KeyID(o.GetId())
	d, err := a.Keys.Get(ctx, keyID)
	if err != nil || o.GetVersionId() == "" || d.Body.State != domain.PreActive {
		return ignoreNotFound(err)
	}
	d.Body.VersionID = o.GetVersionId()
	s, err := a.status(ctx, d.Body)
	if err != nil || !s.Known {
		return err
	}
	return a.VersionAdded(ctx, keyID, s.Version)
}
