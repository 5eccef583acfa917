package nats_test

import (
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/nats"
)

func connect(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := natsgo.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

func TestTheBusSurvivesARestartAndCanBeWiped(t *testing.T) {
	s := labtest.NATS(t, nats.Options{SyncInterval: time.Second, Username: "platform", Password: "secret"})
	ctx := labtest.Deadline(t, 20*time.Second)
	url := s.URL()
	js := connect(t, url)
	for _, name := range []string{"EVENTS", "OTHER"} {
		stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}})
		require.NoError(t, err)
		_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "reader"})
		require.NoError(t, err)
	}
	_, err := js.Publish(ctx, "EVENTS.one", []byte("kept"))
	require.NoError(t, err)

	s.Down()
	s.Down()
	_, err = natsgo.Connect(url)
	require.Error(t, err)
	require.NoError(t, s.Up())
	require.Equal(t, url, s.URL())

	js = connect(t, url)
	stream, err := js.Stream(ctx, "EVENTS")
	require.NoError(t, err)
	require.EqualValues(t, 1, stream.CachedInfo().State.Msgs)

	n, err := s.DeleteConsumers(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	_, err = stream.Consumer(ctx, "reader")
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
	_, err = stream.GetMsg(ctx, 1)
	require.NoError(t, err, "the message stays")

	n, err = s.DeleteStreams(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	names, err := s.Streams(ctx)
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestWrongCredentialsAreRefused(t *testing.T) {
	s := labtest.NATS(t, nats.Options{Username: "platform", Password: "secret"})
	_, stranger, _ := strings.Cut(s.URL(), "@")
	_, err := natsgo.Connect("nats://" + stranger)
	require.ErrorIs(t, err, natsgo.ErrAuthorization)
}
