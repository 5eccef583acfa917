// Package id makes prefixed, time-ordered identifiers such as crt_01J9ZK….
//
// The order in time is on purpose: random primary keys collapse a large store (docs/adr/0003-storage.md).
package id

import (
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

var entropy = struct {
	sync.Mutex
	*ulid.MonotonicEntropy
}{MonotonicEntropy: ulid.Monotonic(rand.Reader, 0)}

// New returns prefix + "_" + a ULID of the moment now (ULID specification, 48 bits of milliseconds and 80 of entropy).
func New(prefix string, now time.Time) string {
	entropy.Lock()
	defer entropy.Unlock()
	return prefix + "_" + ulid.MustNew(ulid.Timestamp(now), entropy.MonotonicEntropy).String()
}

// Valid reports whether s is an identifier with this prefix.
func Valid(prefix, s string) bool {
	rest, ok := strings.CutPrefix(s, prefix+"_")
	if !ok {
		return false
	}
	_, err := ulid.ParseStrict(rest)
	return err == nil
}

// Derive returns the identifier of kind prefix that belongs to the identifier of, e.g. the version of an order:
// Derive("ver", "ord_01J…") is "ver_01J…". It is how a repeated step finds what it made the first time.
func Derive(prefix, of string) string {
	_, rest, ok := strings.Cut(of, "_")
	if !ok {
		rest = of
	}
	return prefix + "_" + rest
}
