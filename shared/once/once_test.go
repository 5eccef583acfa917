package once_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t *testing.T) (*once.Requests, *clock.Fake, docstore.Store) {
	t.Helper()
	clk := clock.NewFake(start)
	store := memory.New(clk)
	r, err := once.Open(t.Context(), outbox.New(outbox.Config{
		Store: store, Bus: testkit.Silent{}, Source: "test", Clock: clk, Logger: testkit.Logger(t),
		Audit: func(context.Context, []docstore.Entry) error { return nil },
	}))
	require.NoError(t, err)
	return r, clk, store
}

func body(s string) proto.Message { return wrapperspb.String(s) }

func TestARequestIsTheSameOnlyForTheSamePrincipalMethodAndID(t *testing.T) {
	r, _, store := open(t)
	ctx := outbox.WithCall(t.Context(), "token:t", "/x/Create")
	first, err := r.ID(ctx, "p", "m", "r", "crt", body("x"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(first, "crt_"))
	for _, c := range []struct {
		name, principal, method, request string
		same                             bool
	}{
		{"the same again", "p", "m", "r", true},
		{"another principal", "q", "m", "r", false},
		{"another method", "p", "n", "r", false},
		{"another requestId", "p", "m", "s", false},
		{"no requestId", "p", "m", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := r.ID(ctx, c.principal, c.method, c.request, "crt", body("x"))
			require.NoError(t, err)
			require.Equal(t, c.same, got == first)
		})
	}
	pending, err := store.Outbox(t.Context(), clock.Never, 10)
	require.NoError(t, err)
	require.Empty(t, pending, "the note is no entry of the audit trail")
}

func TestAnotherBodyIsRefusedNamingTheFirstResult(t *testing.T) {
	r, _, _ := open(t)
	first, err := r.ID(t.Context(), "p", "m", "r", "crt", body("x"))
	require.NoError(t, err)
	_, err = r.ID(t.Context(), "p", "m", "r", "crt", body("y"))
	require.Equal(t, "REQUEST_ID_REUSED", errs.ReasonOf(err))
	require.Equal(t, first, errs.As(err).Meta["first"])
	_, err = r.ID(t.Context(), "p", "m", strings.Repeat("r", 65), "crt", body("x"))
	require.Equal(t, "BAD_REQUEST_ID", errs.ReasonOf(err))
}

func TestTheSameRequestInFlightTwiceHasOneResult(t *testing.T) {
	r, _, _ := open(t)
	ids := make([]string, 20)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var err error
			if ids[i], err = r.ID(t.Context(), "p", "m", "r", "crt", body("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
}

func TestARequestIsForgottenAfterAWeek(t *testing.T) {
	r, clk, store := open(t)
	first, err := r.ID(t.Context(), "p", "m", "r", "crt", body("x"))
	require.NoError(t, err)
	for n := range 2200 {
		_, err := r.ID(t.Context(), "p", "m", fmt.Sprint(n), "crt", body("x"))
		require.NoError(t, err)
	}
	clk.Advance(once.Keep - time.Hour)
	require.NoError(t, r.Sweep(t.Context()))
	same, err := r.ID(t.Context(), "p", "m", "r", "crt", body("x"))
	require.NoError(t, err)
	require.Equal(t, first, same)
	clk.Advance(2 * time.Hour)
	require.NoError(t, r.Sweep(t.Context()))
	n, err := store.Count(t.Context(), "requests", docstore.Query{Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lte, Value: clock.Never}}}, 5000)
	require.NoError(t, err)
	require.Zero(t, n, "all are removed, however many")
	other, err := r.ID(t.Context(), "p", "m", "r", "crt", body("y"))
	require.NoError(t, err)
	require.NotEqual(t, first, other)
}
