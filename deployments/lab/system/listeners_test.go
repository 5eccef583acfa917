package system_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/bus"
)

// Who acts on an event by its contract is who has a consumer for it.
func TestWhoActsOnAnEventHearsIt(t *testing.T) {
	t.Parallel()
	var conn *nats.Conn
	start(t, stage.Options{Change: func(cfg *certwright.Config) { cfg.Bus = func(c *nats.Conn) { conn = c } }})
	ctx := labtest.Deadline(t, time.Minute)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, bus.Stream)
	require.NoError(t, err)
	hears := map[string][]string{}
	all := stream.ListConsumers(ctx)
	for c := range all.Info() {
		service, _, _ := strings.Cut(c.Config.Durable, "-")
		for _, subject := range append(c.Config.FilterSubjects, c.Config.FilterSubject) {
			typ := strings.TrimSuffix(strings.TrimPrefix(subject, "certwright.events."), ".>")
			if service != "" && subject != "" && !slices.Contains(hears[typ], service) {
				hears[typ] = append(hears[typ], service)
			}
		}
	}
	require.NoError(t, all.Err())
	for _, typ := range events.Types() {
		msg, _ := events.New(typ)
		require.ElementsMatch(t, events.Options(msg).GetActedOnBy(), hears[typ], typ)
	}
}
