package bus_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/testkit"
)

// BenchmarkTellAndHear measures one fact from Publish to its handler, one after the other.
func BenchmarkTellAndHear(b *testing.B) {
	s := testkit.NATS(b)
	bs, err := bus.New(b.Context(), bus.Config{Conn: s.Conn(), Source: "orders", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	heard := make(chan struct{}, 1)
	require.NoError(b, bs.Consume(bus.Consumer{Name: "orders-bench", Handle: func(context.Context, bus.Event) error {
		heard <- struct{}{}
		return nil
	}}))
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- bs.Run(ctx) }()
	testkit.Eventually(b, func() bool { return bs.Ready() == nil }, "not ready")
	n := 0
	for b.Loop() {
		n++
		e := bus.Event{ID: fmt.Sprintf("evt-%d", n), Type: "certificate.deleted", Source: "inventory", Subject: "crt_1", Time: noon, Data: []byte("{}")}
		if err := bs.Publish(ctx, e.Entry()); err != nil {
			b.Fatal(err)
		}
		<-heard
	}
	cancel()
	require.NoError(b, <-done)
}
