// Package bench measures the whole platform beside what it is built on: certificates per second and latency from the API call to the fact
// certificate.issued, against a bare ACME client doing the same orders at the same CA in the same run; what one certificate costs in
// writes, syncs, messages, calls and round trips; other clients; and the process at rest.
//
// Times depend on the machine and are only ever compared within a run. Counts do not, and a test holds them to their bounds.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/telemetry"

	"net/http"
)

// sample is the part of the traces that is recorded: what a busy installation would set.
const sample = 0.01

// patience is how long one certificate may take before the measurement is given up.
const patience = time.Minute

// Obtain gets one certificate for a name that nothing was issued for before.
type Obtain func(ctx context.Context, name string) error

// Bench is the platform and a bare client at one CA.
type Bench struct {
	*stage.Stage
	issuer    string
	telemetry *telemetry.Telemetry
	library   *library
	names     atomic.Int64

	mu      sync.Mutex
	stores  map[string]*faulty.Store
	syncs   map[string]syncer
	waiting map[string]chan string // by certificate; gets the type of the fact that ends the waiting
	ended   map[string]string      // facts heard before anybody waited

	stop context.CancelFunc
	feed chan struct{}
}

// syncer is a store that knows how often it synced its file.
type syncer interface {
	Stats() (writes, commits int64)
}

// Start starts everything in a directory that is empty. dir is the caller's to remove.
func Start(ctx context.Context, dir string) (_ *Bench, err error) {
	b := &Bench{stores: map[string]*faulty.Store{}, syncs: map[string]syncer{}, waiting: map[string]chan string{}, ended: map[string]string{}, feed: make(chan struct{})}
	b.telemetry, err = telemetry.New(ctx, telemetry.Config{Service: "certwright", SampleRatio: sample, LogLevel: "warn"})
	if err != nil {
		return nil, err
	}
	b.Stage, err = stage.Start(ctx, stage.Options{Dir: dir, CA: ca.Options{}, Change: func(cfg *certwright.Config) {
		cfg.Telemetry = b.telemetry
		cfg.Stores = b.count
	}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = b.Close()
		}
	}()
	if b.library, err = newLibrary(b.CA, b.HTTP01Port); err != nil {
		return nil, err
	}
	issuer, err := b.Issuer(ctx, "bench CA")
	if err != nil {
		return nil, err
	}
	b.issuer = issuer.GetId()
	feed, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	go func() {
		defer close(b.feed)
		_ = b.Events(feed, b.hear, "certificate.issued", "certificate.intent_closed")
	}()
	return b, b.warm(ctx)
}

// Close stops everything.
func (b *Bench) Close() error {
	if b.stop != nil {
		b.stop()
		<-b.feed
	}
	if b.library != nil {
		b.library.close()
	}
	return b.Stage.Close()
}

// warm gets one certificate by each way, so that accounts, connections and the event feed are there.
func (b *Bench) warm(ctx context.Context) error {
	if err := b.ByLibrary(ctx, b.Name(libraryHost)); err != nil {
		return fmt.Errorf("the library's first certificate: %w", err)
	}
	// A fact told before the feed is read is missed: the state says the same.
	c, err := b.Request(ctx, b.issuer, "http-01", nil, b.Name(""))
	if err != nil {
		return err
	}
	if _, err = b.Version(ctx, c.GetId(), ""); err != nil {
		return fmt.Errorf("the platform's first certificate: %w", err)
	}
	for range 50 {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = b.ByPlatform(short, b.Name(""))
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("the event feed shows nothing: %w", err)
}

func (b *Bench) count(service string, s docstore.Store) docstore.Store {
	b.mu.Lock()
	defer b.mu.Unlock()
	if st, ok := s.(syncer); ok {
		b.syncs[service] = st
	}
	b.stores[service] = faulty.New(s, faulty.Faults{})
	return b.stores[service]
}

// Name makes a new name in the stage's zone. It resolves to 127.0.0.1, where the platform answers, or to the host given.
func (b *Bench) Name(host string) string {
	n := fmt.Sprintf("b%d.%s", b.names.Add(1), stage.Zone)
	if host != "" {
		if err := b.DNS.Add(n + ". 60 IN A " + host); err != nil {
			return "" // the zone is ours and the line well formed: what is empty fails at once
		}
	}
	return n
}

// ByLibrary gets a certificate by the bare client.
func (b *Bench) ByLibrary(ctx context.Context, name string) error { return b.library.obtain(ctx, name) }

// ByPlatform gets a certificate through the API, and returns when certificate.issued came over the event feed.
func (b *Bench) ByPlatform(ctx context.Context, name string) error {
	made := &inventoryv1.Certificate{}
	err := b.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{Certificate: &inventoryv1.Certificate{
		Owner: "bench@shop.test",
		Spec:  &typesv1.CertificateSpec{Issuer: b.issuer, Names: []string{name}, Challenge: &typesv1.ChallengeSpec{Type: "http-01"}},
	}}, made)
	if err != nil {
		return err
	}
	ch := make(chan string, 1)
	b.mu.Lock()
	if how, ok := b.ended[made.GetId()]; ok {
		delete(b.ended, made.GetId())
		ch <- how
	} else {
		b.waiting[made.GetId()] = ch
	}
	b.mu.Unlock()
	select {
	case how := <-ch:
		if how != "" {
			return fmt.Errorf("certificate %s for %s was not issued: %s", made.GetId(), name, how)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("certificate %s for %s: %w", made.GetId(), name, ctx.Err())
	}
}

// hear is told the facts that end the waiting: issued, or an intent that closed in another way.
func (b *Bench) hear(e client.Event) {
	how := ""
	if e.Type == "certificate.intent_closed" {
		var m struct{ Outcome, Reason string }
		if json.Unmarshal(e.Data, &m) != nil || m.Outcome == "issued" {
			return
		}
		how = m.Outcome + " " + m.Reason
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ch, ok := b.waiting[e.Subject]; ok {
		delete(b.waiting, e.Subject)
		ch <- how
		return
	}
	b.ended[e.Subject] = how
}

// rest waits until the platform has nothing in hand any more, so that what it does after a certificate is not measured as the library's.
func (b *Bench) rest(ctx context.Context) error {
	before := b.written()
	for {
		if err := clock.System().Sleep(ctx, 1500*time.Millisecond); err != nil {
			return err
		}
		now := b.written()
		if now == before {
			return nil
		}
		before = now
	}
}

// written is how many writes all stores have seen, apart from clearing outboxes.
func (b *Bench) written() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n int64
	for _, s := range b.syncs {
		w, _ := s.Stats()
		n += w
	}
	return n
}
