package bus_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

func user(name string, tells, hears []string, consumers ...string) *server.User {
	pub, sub := bus.Permissions(name, tells, hears, consumers...)
	return &server.User{Username: name, Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: pub}, Subscribe: &server.SubjectPermission{Allow: sub},
	}}
}

func TestAServiceNeedsNoMoreThanItsPermissions(t *testing.T) {
	t.Parallel()
	denied := make(chan error, 100)
	s := testkit.NATSUsers(t,
		user("orders", []string{"order.issued"}, []string{"certificate.deleted"}, "orders-saga"),
		user("inventory", []string{"certificate.deleted"}, nil),
		user("gateway", nil, []string{"certificate.deleted"}),
	)
	as := func(name string) *bus.Bus {
		return open(t, s, func(c *bus.Config) {
			c.Source = name
			c.Conn = s.Conn(nats.UserInfo(name, "secret"), nats.CustomInboxPrefix(bus.InboxPrefix(name)),
				nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
		})
	}
	inventory := as("inventory") // makes the streams
	orders := as("orders")
	gateway := as("gateway")

	var healthy atomic.Bool
	r := recorder{answer: func(context.Context, bus.Event, int) error {
		if !healthy.Load() {
			return errs.New(errs.Invalid, "BAD", "bad")
		}
		return nil
	}}
	hear(t, orders, bus.Consumer{Name: "orders-saga", Types: []string{"certificate.deleted"}}, &r)
	run(t, orders)
	tl := startTail(t, gateway, bus.TailOptions{Types: []string{"certificate.deleted"}})
	publish(t, inventory, deleted(t, "evt", "crt_1").Entry())
	testkit.Eventually(t, r.has("evt"), "orders did not hear")
	testkit.Eventually(t, tl.has("evt"), "the gateway did not hear")
	issued := deleted(t, "issued", "ord_1")
	issued.Type = "order.issued"
	publish(t, orders, issued.Entry())
	testkit.Eventually(t, func() bool {
		letters, err := gateway.DeadLetters(t.Context(), 1)
		require.NoError(t, err)
		return len(letters) == 1
	}, "there is no dead letter")
	testkit.Eventually(t, func() bool {
		letters, err := orders.DeadLetters(t.Context(), 1)
		require.NoError(t, err)
		return len(letters) == 1
	}, "orders sees no dead letter")
	healthy.Store(true)
	require.NoError(t, gateway.Redrive(t.Context(), "orders-saga", 1))
	tl.cancel()
	require.NoError(t, <-tl.done)
	select {
	case err := <-denied:
		t.Fatalf("denied: %v", err)
	default:
	}

	// And not more: telling what another service tells is refused.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	require.Error(t, orders.Publish(ctx, deleted(t, "forged", "crt_1").Entry()))
	select {
	case err := <-denied:
		require.ErrorIs(t, err, nats.ErrPermissionViolation)
	case <-time.After(testkit.Deadline):
		t.Fatal("nothing was denied")
	}
	require.Zero(t, r.count("forged"))
}
