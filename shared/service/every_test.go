package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/testkit"
)

func TestWorkThatFailsIsDoneAgainAfterThePause(t *testing.T) {
	var log bytes.Buffer
	clk := clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	p := &Platform{Clock: clk, Logger: slog.New(slog.NewJSONHandler(&log, nil))}
	done := make(chan struct{}, 10)
	p.Every("tidying", time.Hour, func(context.Context) error {
		done <- struct{}{}
		return errors.New("busy")
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.tasks[0].Run(ctx) }()
	<-done
	testkit.Eventually(t, func() bool { clk.Advance(time.Hour); return len(done) > 0 }, "done again")
	cancel()
	require.NoError(t, <-ended)
	require.Contains(t, log.String(), `"work":"tidying","error":"busy"`)
}
