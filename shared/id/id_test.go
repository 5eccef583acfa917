package id_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/id"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestIdentifiersAreOrderedInTimeAndInsideAMillisecond(t *testing.T) {
	var ids []string
	for i := range 100 {
		at := now.Add(time.Duration(i) * time.Millisecond)
		for range 20 {
			ids = append(ids, id.New("crt", at))
		}
	}
	require.True(t, slices.IsSorted(ids))
	require.Len(t, slices.Compact(slices.Clone(ids)), len(ids))
	require.Regexp(t, `^crt_[0-9A-HJKMNP-TV-Z]{26}$`, ids[0])
}

func TestIdentifiersMadeAtOnceDiffer(t *testing.T) {
	const makers, each = 8, 200
	all := make(chan string, makers*each)
	var wg sync.WaitGroup
	for range makers {
		wg.Go(func() {
			for range each {
				all <- id.New("ord", now)
			}
		})
	}
	wg.Wait()
	close(all)
	seen := map[string]bool{}
	for i := range all {
		require.True(t, id.Valid("ord", i))
		seen[i] = true
	}
	require.Len(t, seen, makers*each)
}

func TestValid(t *testing.T) {
	good := id.New("crt", now)
	for _, c := range []struct {
		name, prefix, s string
		want            bool
	}{
		{"its own prefix", "crt", good, true},
		{"another prefix", "ord", good, false},
		{"a part of the prefix", "cr", good, false},
		{"no prefix", "", good, false},
		{"a cut one", "crt", good[:len(good)-1], false},
		{"a longer one", "crt", good + "0", false},
		{"a letter that ULID does not have", "crt", good[:len(good)-1] + "U", false},
		{"a path", "crt", "crt_../../../etc/passwd", false},
		{"nothing", "crt", "", false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, id.Valid(c.prefix, c.s)) })
	}
}

func TestDeriveFindsTheSameAgain(t *testing.T) {
	order := id.New("ord", now)
	version := id.Derive("ver", order)
	require.Equal(t, version, id.Derive("ver", order))
	require.True(t, id.Valid("ver", version))
	require.Equal(t, strings.TrimPrefix(order, "ord_"), strings.TrimPrefix(version, "ver_"))
	require.Equal(t, "ver_bare", id.Derive("ver", "bare"))
}
