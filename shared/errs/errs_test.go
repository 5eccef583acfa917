package errs_test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
)

func TestEveryKindHasAnOwnName(t *testing.T) {
	seen := map[string]bool{}
	for i, k := range errs.Kinds() {
		require.Equal(t, errs.Kind(i), k)
		require.NotContains(t, k.String(), "kind(")
		require.False(t, seen[k.String()], k)
		seen[k.String()] = true
	}
	require.Equal(t, "kind(200)", errs.Kind(200).String())
	var zero errs.Kind
	require.Equal(t, errs.Internal, zero, "a forgotten kind is never the user's fault")
}

func TestTransientIsWhatTryingAgainCanMend(t *testing.T) {
	later := map[errs.Kind]bool{
		errs.Internal: true, errs.RateLimited: true, errs.Unavailable: true, errs.Timeout: true, errs.Canceled: true, errs.Conflict: true,
		errs.Invalid: false, errs.NotFound: false, errs.AlreadyExists: false, errs.Precondition: false, errs.Unauthenticated: false,
		errs.Forbidden: false, errs.Unimplemented: false,
	}
	require.Len(t, later, len(errs.Kinds()))
	for _, k := range errs.Kinds() {
		require.Equal(t, later[k], errs.Transient(errs.New(k, "", "x")), k)
	}
	require.True(t, errs.Transient(errors.New("untyped")))
}

func TestClassification(t *testing.T) {
	e := errs.New(errs.NotFound, "NO_ORDER", "order %s: %w", "ord_1", io.EOF)
	for _, c := range []struct {
		name   string
		err    error
		kind   errs.Kind
		reason string
	}{
		{"a typed error has its kind and reason", e, errs.NotFound, "NO_ORDER"},
		{"a wrapped one too", fmt.Errorf("loading: %w", e), errs.NotFound, "NO_ORDER"},
		{"a joined one too", errors.Join(io.EOF, e), errs.NotFound, "NO_ORDER"},
		{"the outermost of two decides", errs.New(errs.Unavailable, "", "x: %w", e), errs.Unavailable, "UNAVAILABLE"},
		{"without a reason the kind's name is the reason", errs.New(errs.AlreadyExists, "", "x"), errs.AlreadyExists, "ALREADY_EXISTS"},
		{"an untyped one is internal", io.EOF, errs.Internal, "INTERNAL"},
		{"nil is internal", nil, errs.Internal, "INTERNAL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.kind, errs.KindOf(c.err))
			require.Equal(t, c.reason, errs.ReasonOf(c.err))
		})
	}
	require.Equal(t, "order ord_1: EOF", e.Error())
	require.ErrorIs(t, e, io.EOF)
	require.Nil(t, errs.As(io.EOF))
}

func TestSentinelsCompareByKindAndReason(t *testing.T) {
	e := errs.New(errs.Conflict, "REVISION_CONFLICT", "one")
	require.ErrorIs(t, fmt.Errorf("w: %w", e), errs.New(errs.Conflict, "REVISION_CONFLICT", "another text"))
	require.NotErrorIs(t, e, errs.New(errs.Conflict, "OTHER", "one"))
	require.NotErrorIs(t, e, errs.New(errs.NotFound, "REVISION_CONFLICT", "one"))
	require.NotErrorIs(t, e, io.EOF)
}

func TestWithReturnsACopy(t *testing.T) {
	base := errs.New(errs.Invalid, "BAD", "bad: %w", io.EOF)
	one := base.WithField("a", "no %d", 1).WithMeta("k", "v").WithRetryAfter(time.Second)
	two := one.WithField("b", "no").WithMeta("k", "w")
	require.Empty(t, base.Fields)
	require.Empty(t, base.Meta)
	require.Zero(t, base.RetryAfter)
	require.Len(t, one.Fields, 1)
	require.Equal(t, "v", one.Meta["k"])
	require.Equal(t, "w", two.Meta["k"])
	require.Equal(t, "bad: EOF (a: no 1; b: no)", two.Error())
	require.ErrorIs(t, two, io.EOF, "the cause stays")
	require.Equal(t, time.Second, two.RetryAfter)
}
