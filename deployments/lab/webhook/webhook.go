// Package webhook receives what the platform sends to subscribers and checks every signature on its own, by the
// text of the Standard Webhooks specification and not with the platform's code.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/shared/clock"
)

const (
	tolerance    = 5 * time.Minute // between the signed time and now
	secretPrefix = "whsec_"
	maxBody      = 4 << 20
)

// Options of a receiver.
type Options struct {
	Addr    string   // loopback address to listen on; empty: a free port
	Secrets []string // "whsec_" + base64; a signature by any of them is good. Empty: nothing is verified
	TLS     bool     // HTTPS with a throw-away certificate
	// AcceptUnsigned answers a bad signature like a good one; without it the answer is 401.
	AcceptUnsigned bool
}

// Delivery is one request.
type Delivery struct {
	At       time.Time
	ID       string // header webhook-id: the same when sent again
	Path     string
	Header   http.Header
	Body     []byte
	Verified error // nil: the signature is good
	Status   int   // what was answered
}

// Answer is one response of the receiver.
type Answer struct {
	Status     int           // zero: 204
	RetryAfter time.Duration // zero: no such header
	Hang       bool          // no answer until the client goes or the receiver closes
}

// Receiver is a running receiver.
type Receiver struct {
	opts     Options
	root     *pki.Authority
	listener net.Listener
	server   *http.Server
	finished sync.WaitGroup
	closed   chan struct{}
	closeFn  func() error

	mu         sync.Mutex
	secrets    []string
	next       []Answer
	standing   Answer
	deliveries []Delivery
	arrived    chan struct{} // closed and renewed when a request arrives
}

// Start runs a receiver until Close.
func Start(o Options) (*Receiver, error) {
	r := &Receiver{
		opts: o, secrets: slices.Clone(o.Secrets), arrived: make(chan struct{}), closed: make(chan struct{}),
		standing: Answer{Status: http.StatusNoContent},
	}
	var err error
	if r.root, err = pki.New("Lab webhook root"); err != nil {
		return nil, err
	}
	if r.listener, err = loopback.Listen(o.Addr); err != nil {
		return nil, err
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	serve := r.listener
	if o.TLS {
		pair, err := r.root.Issue("localhost", "127.0.0.1")
		if err != nil {
			return nil, errors.Join(err, r.listener.Close())
		}
		serve = tls.NewListener(r.listener, &tls.Config{Certificates: []tls.Certificate{pair.TLS}, MinVersion: tls.VersionTLS12})
	}
	r.finished.Go(func() { _ = r.server.Serve(serve) })
	r.closeFn = sync.OnceValue(func() error {
		close(r.closed)
		err := r.server.Close()
		r.finished.Wait()
		return err
	})
	return r, nil
}

// Close ends the receiver. It is safe to call more than once.
func (r *Receiver) Close() error { return r.closeFn() }

// URL is where to send to; any path below it is taken.
func (r *Receiver) URL() string {
	if r.opts.TLS {
		return "https://" + r.listener.Addr().String() + "/hook"
	}
	return "http://" + r.listener.Addr().String() + "/hook"
}

// RootPEM is what the HTTPS certificate chains to.
func (r *Receiver) RootPEM() []byte { return r.root.RootPEM() }

// SetSecrets changes whose signatures are good.
func (r *Receiver) SetSecrets(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets = slices.Clone(secrets)
}

// AnswerNext queues answers for the next requests, one each.
func (r *Receiver) AnswerNext(answers ...Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = append(r.next, answers...)
}

// AnswerAlways is what every request gets once the queue is empty.
func (r *Receiver) AnswerAlways(a Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standing = a
}

// Deliveries are all requests so far, refused ones included.
func (r *Receiver) Deliveries() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.deliveries)
}

// Wait returns the deliveries once there are at least n, or ctx's error.
func (r *Receiver) Wait(ctx context.Context, n int) ([]Delivery, error) {
	for {
		r.mu.Lock()
		arrived, all := r.arrived, slices.Clone(r.deliveries)
		r.mu.Unlock()
		if len(all) >= n {
			return all, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return all, fmt.Errorf("%d of %d deliveries arrived: %w", len(all), n, ctx.Err())
		}
	}
}

// ServeHTTP takes one delivery.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBody))
	if err != nil {
		http.Error(w, "body too large or cut off", http.StatusBadRequest)
		return
	}
	now := clock.System().Now()
	d := Delivery{At: now, ID: q.Header.Get("webhook-id"), Path: q.URL.Path, Header: q.Header.Clone(), Body: body}
	r.mu.Lock()
	if len(r.secrets) > 0 {
		d.Verified = Verify(r.secrets, q.Header, body, now)
	}
	a := r.standing
	if len(r.next) > 0 {
		a, r.next = r.next[0], r.next[1:]
	}
	if d.Verified != nil && !r.opts.AcceptUnsigned {
		a = Answer{Status: http.StatusUnauthorized}
	}
	if d.Status = a.Status; d.Status == 0 {
		d.Status = http.StatusNoContent
	}
	r.deliveries = append(r.deliveries, d)
	close(r.arrived)
	r.arrived = make(chan struct{})
	r.mu.Unlock()
	if a.Hang {
		select {
		case <-q.Context().Done():
		case <-r.closed:
		}
		panic(http.ErrAbortHandler)
	}
	if a.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((a.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(d.Status)
}

// Verify checks a delivery by the Standard Webhooks specification: webhook-signature holds, separated by spaces,
// "v1," + base64(HMAC-SHA256(secret, id + "." + timestamp + "." + body)), and the timestamp (Unix seconds) is
// within five minutes of now.
func Verify(secrets []string, h http.Header, body []byte, now time.Time) error {
	id, stamp, signatures := h.Get("webhook-id"), h.Get("webhook-timestamp"), h.Get("webhook-signature")
	if id == "" || stamp == "" || signatures == "" {
		return errors.New("webhook-id, webhook-timestamp and webhook-signature must all be there")
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("webhook-timestamp %q is not a number of seconds", stamp)
	}
	if age := now.Sub(time.Unix(seconds, 0)).Abs(); age > tolerance {
		return fmt.Errorf("webhook-timestamp is %s away from now", age)
	}
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
		if err != nil || !strings.HasPrefix(secret, secretPrefix) {
			return errors.New("a secret is not whsec_ and base64")
		}
		mac := hmac.New(sha256.New, key)
		_, _ = io.WriteString(mac, id+"."+stamp+".") // a hash takes everything
		_, _ = mac.Write(body)
		want := mac.Sum(nil)
		for one := range strings.FieldsSeq(signatures) {
			version, value, _ := strings.Cut(one, ",")
			got, err := base64.StdEncoding.DecodeString(value)
			if version == "v1" && err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return errors.New("no signature of a known secret")
}
