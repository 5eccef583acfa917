package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

const (
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second // a client that is slower than this is disconnected, and comes back with its position
	// settle is how long the feed has been read when "resync" is sent: what happens while the client reads the state anew comes as facts.
	settle   = 500 * time.Millisecond
	maxFeeds = 256
)

// facts is the part of the bus that the feed needs; *bus.Bus is one.
type facts interface {
	Tail(ctx context.Context, o bus.TailOptions, f func(bus.Event) error) error
	StreamEpoch() string
}

// feed is /v1/events: the facts of the bus as server-sent events.
type feed struct {
	facts  facts
	auth   *authenticator
	logger *slog.Logger
	clk    clock.Clock // the machine's: what is timed here are connections
	open   atomic.Int64
	ending chan struct{} // closed when the edge stops
}

func newFeed(f facts, auth *authenticator, logger *slog.Logger) *feed {
	return &feed{facts: f, auth: auth, logger: logger, clk: clock.System(), ending: make(chan struct{})}
}

// errResync ends one reading of the stream: the position that the client has means nothing (any more).
var errResync = errors.New("the position is of another stream")

func (e *edge) events(w http.ResponseWriter, r *http.Request) {
	principal, err := e.auth.of(r.Context(), r.Header)
	if err == nil && !principal.Has("events.read") {
		err = errs.New(errs.Forbidden, authz.ReasonDenied, "the permission events.read is wanted; %s does not have it", principal.Subject).WithMeta("permission", "events.read")
	}
	if err != nil {
		e.fail(w, r, 0, err)
		return
	}
	callOf(r.Context()).subject = principal.Subject
	types, err := typesOf(r)
	if err != nil {
		e.fail(w, r, 0, err)
		return
	}
	if e.feed.open.Add(1) > maxFeeds {
		e.feed.open.Add(-1)
		e.fail(w, r, 0, errs.New(errs.RateLimited, "FEED_FULL", "%d clients follow the events already, which is the limit", maxFeeds).WithRetryAfter(30*time.Second))
		return
	}
	defer e.feed.open.Add(-1)
	e.feed.serve(w, r, principal, types)
}

// typesOf reads ?types=a,b&types=c and refuses types that no contract knows.
func typesOf(r *http.Request) ([]string, error) {
	query := r.URL.Query()
	for name := range query {
		if name != "types" && name != "since" {
			return nil, errs.New(errs.Invalid, "UNKNOWN_PARAMETER", "the query has a parameter that this call does not know").WithField(name, "allowed in the query: types, since")
		}
	}
	var out []string
	for _, v := range query["types"] {
		for _, t := range strings.Split(v, ",") {
			if t = strings.TrimSpace(t); t == "" {
				continue
			}
			if _, ok := events.New(t); !ok {
				return nil, errs.New(errs.Invalid, "EVENT_TYPE_UNKNOWN", "there is no event type %q; docs/events.md lists them, certificate.issued is one", t).WithField("types", "%q is not an event type", t)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// reading is where one reading of the stream begins.
type reading struct {
	from   bus.TailOptions
	epoch  string // of the stream, when from is a position in it
	resync bool   // the client is told to read the state anew
}

// begin says where to read from, given the client's last position, which may be of another stream.
func (f *feed) begin(since string) reading {
	if since == "" {
		return reading{from: bus.TailOptions{SinceNow: true}}
	}
	epoch, number, _ := strings.Cut(since, "-")
	seq, err := strconv.ParseUint(number, 10, 63)
	if err != nil || epoch != f.facts.StreamEpoch() {
		return reading{from: bus.TailOptions{SinceNow: true}, resync: true}
	}
	return reading{from: bus.TailOptions{FromSequence: seq + 1}, epoch: epoch}
}

func (f *feed) serve(w http.ResponseWriter, r *http.Request, p authz.Principal, types []string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	since := r.Header.Get("Last-Event-ID")
	if since == "" {
		since = r.URL.Query().Get("since")
	}
	s := &stream{w: w, control: http.NewResponseController(w), clk: f.clk}
	_ = s.control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead || s.send("retry: 2000\n\n") != nil {
		return
	}
	next := f.begin(since)
	for {
		next.from.Types = types
		err := f.follow(ctx, s, r.Header, p, next)
		switch {
		case errors.Is(err, errResync):
			next, s.seen = reading{from: bus.TailOptions{SinceNow: true}, resync: true}, ""
		case errs.ReasonOf(err) == "STREAM_RENEWED": // everything in the new stream is new
			next, s.seen = reading{resync: true}, ""
		case slices.Contains([]errs.Kind{errs.Unavailable, errs.Timeout, errs.NotFound}, errs.KindOf(err)): // the bus is away, or its stream being made
			if f.clk.Sleep(ctx, settle) != nil {
				return
			}
			if s.seen != "" {
				next = f.begin(s.seen)
			}
		default:
			if err != nil && ctx.Err() == nil {
				f.logger.DebugContext(ctx, "a feed of events ended", "error", err)
			}
			return
		}
	}
}

// follow reads the stream once, until an error, and sends what p may see.
func (f *feed) follow(ctx context.Context, s *stream, h http.Header, p authz.Principal, r reading) error {
	tailing, stop := context.WithCancel(ctx)
	in := make(chan bus.Event, 64)
	ended := make(chan error, 1)
	go func() {
		ended <- f.facts.Tail(tailing, r.from, func(e bus.Event) error {
			if r.epoch != "" && e.StreamEpoch != r.epoch {
				return errResync
			}
			select {
			case in <- e:
				return nil
			case <-tailing.Done():
				return tailing.Err()
			}
		})
		close(ended)
	}()
	defer func() { // the tail has ended when follow returns
		stop()
		for range ended { //nolint:revive // waits until it is closed
		}
	}()

	var settled <-chan time.Time
	if r.resync {
		c, release := f.clk.After(settle)
		defer release()
		settled = c
	}
	told := func() error { // "resync" goes before the first fact
		if !r.resync {
			return nil
		}
		r.resync = false
		return s.send("event: resync\ndata: {}\n\n")
	}
	beat, release := f.clk.After(heartbeat)
	defer func() { release() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.ending:
			return nil
		case err := <-ended:
			for len(in) > 0 {
				if sendErr := errors.Join(told(), s.fact(<-in, p)); sendErr != nil {
					return sendErr
				}
			}
			if errs.ReasonOf(err) == "EVENT_POSITION_UNKNOWN" {
				return errResync
			}
			return err
		case e := <-in:
			if err := errors.Join(told(), s.fact(e, p)); err != nil {
				return err
			}
		case <-settled:
			if err := told(); err != nil {
				return err
			}
		case <-beat:
			release()
			beat, release = f.clk.After(heartbeat)
			now, err := f.auth.of(ctx, h)
			if errs.KindOf(err) == errs.Unauthenticated {
				return err // revoked or expired meanwhile
			}
			if err == nil {
				p = now
			}
			if err := s.beat(); err != nil {
				return err
			}
		}
	}
}

// stream writes server-sent events (WHATWG HTML, section 9.2).
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	clk     clock.Clock
	seen    string // position of the last fact, shown or not
	sent    string // position that the client has
}

// shown is the data of an event.
type shown struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Subject  string          `json:"subject"`
	Time     string          `json:"time"`
	Team     string          `json:"team,omitempty"`
	Revision int64           `json:"revision"`
	Data     json.RawMessage `json:"data"`
}

func (s *stream) fact(e bus.Event, p authz.Principal) error {
	s.seen = e.StreamEpoch + "-" + strconv.FormatUint(e.Sequence, 10)
	if !authz.InTeam(p, e.Team) || !p.Has("events.read") {
		return nil
	}
	var data bytes.Buffer
	if json.Compact(&data, e.Data) != nil {
		data.Reset()
		data.WriteString("null")
	}
	line, err := json.Marshal(shown{
		ID: e.ID, Type: e.Type, Subject: e.Subject, Time: e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), Team: e.Team, Revision: e.Revision, Data: data.Bytes(),
	})
	if err != nil {
		return err
	}
	s.sent = s.seen
	return s.send(fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", s.seen, e.Type, line))
}

// beat keeps the connection alive, and moves the client's position on past facts that it may not see.
func (s *stream) beat() error {
	if s.seen != "" && s.seen != s.sent {
		s.sent = s.seen
		return s.send(": heartbeat\nid: " + s.seen + "\n\n")
	}
	return s.send(": heartbeat\n\n")
}

func (s *stream) send(text string) error {
	if err := s.control.SetWriteDeadline(s.clk.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return err
	}
	return s.control.SetWriteDeadline(time.Time{}) // HTTP/2 resets a stream whose deadline passes, even when nothing is being written
}
