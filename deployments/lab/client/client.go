// Package client calls the platform's REST edge with the contracts' own types. It is the lab's: what users have is the CLI.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Client is one caller of one edge.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New makes a client of the edge at base that trusts the roots and sends the token in the file.
func New(base string, roots []byte, tokenFile string) (*Client, error) {
	token, err := os.ReadFile(tokenFile) //nolint:gosec // the caller names it
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("the edge's roots hold no certificate")
	}
	return &Client{base: strings.TrimSuffix(base, "/"), token: strings.TrimSpace(string(token)), http: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 128, ForceAttemptHTTP2: true},
	}}, nil
}

// Error is an answer other than 2xx.
type Error struct {
	Status  int
	Message string
	Body    string
}

func (e *Error) Error() string { return fmt.Sprintf("HTTP %d: %s", e.Status, e.Message) }

// Call sends in (nil: no body) and reads the answer into out (nil: dropped).
func (c *Client) Call(ctx context.Context, method, path string, in, out proto.Message) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = protojson.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := c.Raw(ctx, method, path, body)
	if err != nil || out == nil {
		return err
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(answer, out)
}

// Raw sends bytes and returns the answer's.
func (c *Client) Raw(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to the end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(answer, &status)
		return nil, &Error{Status: resp.StatusCode, Message: status.Message, Body: string(answer)}
	}
	return answer, nil
}

// Event is a fact of the live feed.
type Event struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Subject string          `json:"subject"`
	Time    time.Time       `json:"time"`
	Data    json.RawMessage `json:"data"`
}

// Events follows the live feed from now until ctx ends, and calls f for each fact of the given types, or of all. It connects again when the
// connection breaks.
func (c *Client) Events(ctx context.Context, f func(Event), types ...string) error {
	path := "/v1/events"
	if len(types) > 0 {
		path += "?types=" + strings.Join(types, ",")
	}
	last := ""
	for ctx.Err() == nil {
		if err := c.follow(ctx, path, &last, f); err != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond): //nolint:forbidigo // the lab waits for a real server
			}
		}
	}
	return nil
}

func (c *Client) follow(ctx context.Context, path string, last *string, f func(Event)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "text/event-stream")
	if *last != "" {
		req.Header.Set("Last-Event-ID", *last)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // a feed has no end
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the event feed answers HTTP %d", resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		line := lines.Text()
		if id, ok := strings.CutPrefix(line, "id:"); ok {
			*last = strings.TrimSpace(id)
		}
		if data, ok := strings.CutPrefix(line, "data:"); ok {
			var e Event
			if json.Unmarshal([]byte(data), &e) == nil && e.Type != "" {
				f(e)
			}
		}
	}
	return lines.Err()
}
