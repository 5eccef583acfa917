package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/shared/errs"
)

const (
	maxEvent = 4 << 20 // bytes of one line
	// silence is how long nothing at all may come before the connection counts as dead; the edge sends a sign of life every 15 s.
	silence = time.Minute
)

// event is what the edge tells of one fact.
type event struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Subject string `json:"subject"`
	Time    string `json:"time"`
	Team    string `json:"team"`
}

func (a *app) events() *cobra.Command {
	var types []string
	var since string
	var count int
	tail := &cobra.Command{
		Use: "tail", Short: "Show what happens, as it happens", Args: cobra.NoArgs,
		Long: `Show what happens, as it happens. A lost connection is made again, and what happened meanwhile is told then.

With --output json each event is one line. A line with the type "resync" says that events may be missing before it: read the state anew.`,
		Example: "  certwright events tail --types certificate.issued,certificate.renewed --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 {
				return usage("--count is %d; allowed: 0 (until stopped) or more", count)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			t := &tailer{app: a, client: c, last: since, left: count, pause: 2 * time.Second}
			if len(types) > 0 {
				t.query = url.Values{"types": {strings.Join(types, ",")}}
			}
			err = t.run(cmd.Context())
			if errors.Is(err, errEnough) || cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	f := tail.Flags()
	f.StringSliceVar(&types, "types", nil, "only events of these `types`, such as certificate.issued; see docs/events.md")
	f.StringVar(&since, "since", "", "begin after this `position`, which --output json shows; default: now")
	f.IntVar(&count, "count", 0, "stop after this many events, 0: until stopped")
	complete(tail, "types", events.Types()...)
	return group("events", "Follow what happens", tail)
}

// errEnough ends a tail that has shown what was asked for.
var errEnough = errors.New("enough")

// tailer follows the feed over as many connections as it takes.
type tailer struct {
	*app
	client *client
	query  url.Values
	last   string // position of the last event
	left   int    // events to show, 0: no limit
	pause  time.Duration
}

func (t *tailer) run(ctx context.Context) error {
	pause := t.pause
	for first := true; ; first = false {
		came, err := t.read(ctx, !first)
		switch {
		case ctx.Err() != nil || errors.Is(err, errEnough):
			return err
		case err != nil && (first || exitCode(err) != ExitUnavailable):
			return err
		case err != nil:
			fmt.Fprintf(t.Err, "%s; trying again\n", printable(err.Error()))
		default:
			fmt.Fprintln(t.Err, "the connection ended; connecting again")
		}
		if came {
			pause = t.pause
		}
		if err := t.Clock.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(pause*2, 30*time.Second)
	}
}

// read shows what one connection brings. came is true when it brought anything.
func (t *tailer) read(ctx context.Context, again bool) (came bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{"Accept": {"text/event-stream"}}
	if t.last != "" {
		header.Set("Last-Event-ID", t.last)
	}
	resp, err := t.client.send(ctx, http.MethodGet, "/v1/events", t.query, nil, header) //nolint:bodyclose // it is closed below; the linter does not see it through send
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return false, refusal(resp, text)
	}
	if again {
		fmt.Fprintln(t.Err, "connected again")
	}
	lines := make(chan string)
	ended := make(chan error, 1)
	go func() {
		s := bufio.NewScanner(resp.Body)
		s.Buffer(nil, maxEvent)
		for s.Scan() {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
		ended <- s.Err()
	}()
	var f frame
	for {
		quiet, stop := t.Clock.After(silence)
		select {
		case line := <-lines:
			stop()
			if !f.add(line) {
				continue
			}
			came = true
			if err := t.show(f); err != nil {
				return came, err
			}
			f = frame{}
		case err := <-ended:
			stop()
			if errors.Is(err, bufio.ErrTooLong) {
				return came, errs.New(errs.Internal, "", "an event is larger than %d bytes", maxEvent)
			}
			return came, nil // the edge stopped, or the network broke: begin again
		case <-quiet:
			return came, errs.New(errs.Unavailable, reasonUnreachable, "the edge sent nothing for %s", silence)
		case <-ctx.Done():
			stop()
			return came, ctx.Err()
		}
	}
}

// frame is one server-sent event (WHATWG HTML, section 9.2.6).
type frame struct{ id, name, data string }

// add takes a line and says whether the event is complete.
func (f *frame) add(line string) bool {
	if line == "" {
		if f.data == "" && f.name == "" { // a sign of life, or a bare position
			return f.id != ""
		}
		return true
	}
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "id":
		f.id = value
	case "event":
		f.name = value
	case "data":
		if f.data != "" {
			f.data += "\n"
		}
		f.data += value
	}
	return false
}

// show prints an event and remembers its position.
func (t *tailer) show(f frame) error {
	if f.id != "" {
		t.last = f.id
	}
	if f.data == "" && f.name == "" {
		return nil
	}
	if f.name == "resync" {
		fmt.Fprintln(t.Err, "resync: events may be missing here; read the state anew")
		if t.output == outputTable {
			return nil
		}
		return t.line("", []byte(`{"type":"resync"}`))
	}
	var e event
	if err := json.Unmarshal([]byte(f.data), &e); err != nil {
		return errs.New(errs.Internal, "", "the edge sent an event that is not JSON: %w", err)
	}
	if t.output == outputTable {
		fmt.Fprintf(t.Out, "%s  %-32s  %s  %s\n", printable(e.Time), printable(e.Type), printable(e.Subject), printable(e.Team))
	} else if err := t.line(t.last, []byte(f.data)); err != nil {
		return err
	}
	if t.left--; t.left == 0 {
		return errEnough
	}
	t.left = max(t.left, 0)
	return nil
}

// line prints one event for a program: a line of JSON, or a document of YAML. The position, "" for none, is
// what --since takes.
func (t *tailer) line(position string, text []byte) error {
	if position != "" && bytes.HasPrefix(text, []byte("{")) {
		text = append([]byte(`{"position":`+strconv.Quote(position)+`,`), text[1:]...)
	}
	var b bytes.Buffer
	if t.output == outputYAML {
		doc, err := yaml.JSONToYAML(text)
		if err != nil {
			return errs.New(errs.Internal, "", "writing YAML: %w", err)
		}
		b.WriteString("---\n")
		b.Write(doc)
	} else {
		if err := json.Compact(&b, text); err != nil {
			return errs.New(errs.Internal, "", "writing JSON: %w", err)
		}
		b.WriteByte('\n')
	}
	_, err := t.Out.Write(b.Bytes())
	return err
}
