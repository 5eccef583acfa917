package dnstest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// API is what the fake APIs of providers have in common: TXT values by name, and faults.
type API struct {
	URL string

	mu       sync.Mutex
	values   map[string][]string // by name without dot
	throttle bool
	lose     bool
	writes   int
	// throttled answers a call that is one too many.
	throttled http.HandlerFunc
}

// start serves h until the test ends. h runs under the lock.
func (a *API) start(t testing.TB, h http.HandlerFunc) {
	a.values = map[string][]string{}
	if a.throttled == nil {
		a.throttled = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		a.mu.Lock()
		defer a.mu.Unlock()
		login := strings.Contains(r.URL.Path, "/oauth2/") || r.URL.Path == "/" // Azure's and AWS's
		write := r.Method != http.MethodGet && !login
		switch {
		case a.throttle:
			a.throttled(w, r)
		case a.lose && write:
			a.lose = false
			h(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			h(w, r)
		}
	}))
	t.Cleanup(s.Close)
	a.URL = s.URL
}

// Set puts values at a name, as somebody else would.
func (a *API) Set(name string, values ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.values[name] = values
}

// Values returns the TXT values at a name, sorted.
func (a *API) Values(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := slices.Clone(a.values[name])
	slices.Sort(all)
	return all
}

// Writes returns how many changes were taken.
func (a *API) Writes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writes
}

// Throttle makes every call one too many, with a pause of 7 s asked for where the provider says one, or ends that.
func (a *API) Throttle(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.throttle = on
}

// LoseAnswer makes the next change happen, and its answer be lost.
func (a *API) LoseAnswer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lose = true
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func decode(r *http.Request, into any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	return d.Decode(into) == nil
}

type object map[string]any
