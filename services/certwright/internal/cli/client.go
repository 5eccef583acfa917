package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // the details of errors
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
)

// callTimeout bounds one call; maxAnswer its answer, in bytes.
const (
	callTimeout = 60 * time.Second
	maxAnswer   = 64 << 20
)

// reasonUnreachable is the reason of every error of the network.
const reasonUnreachable = "EDGE_UNREACHABLE"

// client talks to one edge.
type client struct {
	at   *connection
	http *http.Client
	// agent is the value of User-Agent.
	agent string
}

// client returns the client of this run. Without a token it is Unauthenticated/TOKEN_MISSING.
func (a *app) client() (*client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	at, err := a.connection()
	if err != nil {
		return nil, err
	}
	if at.token.IsZero() {
		return nil, errs.New(errs.Unauthenticated, "TOKEN_MISSING", "there is no token for %s; run certwright login, or set %s (on the machine of certwright serve the first token is in <data directory>/admin.token)",
			at.url, EnvTokenFile)
	}
	c, err := newClient(at, a.Version)
	if err != nil {
		return nil, err
	}
	a.conn = c
	return c, nil
}

func newClient(at *connection, version string) (*client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(at.roots) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(at.roots) {
			return nil, errs.New(errs.Invalid, "NOT_PEM", "%s holds no PEM certificate", at.rootsFrom)
		}
	}
	return &client{at: at, agent: "certwright-cli/" + version, http: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		},
		// A redirect would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// path joins literal parts and values: path("/v1/certificates/", id, ":renew"). Every second part is a value and escaped.
func path(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		if i%2 == 1 {
			p = url.PathEscape(p)
		}
		b.WriteString(p)
	}
	return b.String()
}

// call sends in (nil: no body) and decodes the answer into out (nil: ignored). Errors are *errs.Error with the kind and reason that the edge told, or
// Unavailable/EDGE_UNREACHABLE.
func (c *client) call(ctx context.Context, method, path string, query url.Values, in, out proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := protojson.Marshal(in)
		if err != nil {
			return errs.New(errs.Internal, "", "encoding the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	resp, err := c.send(ctx, method, path, query, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp, text)
	}
	if out == nil {
		return nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, out); err != nil {
		return errs.New(errs.Internal, "", "%s answered what this version of the program does not understand: %w", c.at.url, err)
	}
	return nil
}

// send makes one request and returns any answer; the caller closes its body.
func (c *client) send(ctx context.Context, method, path string, query url.Values, body io.Reader, header http.Header) (*http.Response, error) {
	to := c.at.url.String() + path
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, usage("%s", err.Error())
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Authorization", "Bearer "+c.at.token.Reveal())
	req.Header.Set("User-Agent", c.agent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req) //nolint:gosec // the user names the server
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return resp, nil
}

// refusal reads google.rpc.Status. Unknown details are skipped; an answer of something between us and the edge is judged by its status code.
func refusal(resp *http.Response, text []byte) error {
	var raw struct {
		Code    int32             `json:"code"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	}
	if json.Unmarshal(text, &raw) != nil || raw.Code == 0 {
		return errs.New(kindOfHTTP(resp.StatusCode), "", "%s answered %q, which is not how Certwright answers; is the URL right, or is a proxy in between?", resp.Request.URL.Host, resp.Status)
	}
	s := &spb.Status{Code: raw.Code, Message: raw.Message}
	for _, d := range raw.Details {
		var detail anypb.Any
		if protojson.Unmarshal(d, &detail) == nil {
			s.Details = append(s.Details, &detail)
		}
	}
	return rpc.FromError(status.ErrorProto(s))
}

func kindOfHTTP(code int) errs.Kind {
	switch code {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return errs.Unauthenticated
	case http.StatusForbidden:
		return errs.Forbidden
	case http.StatusNotFound:
		return errs.NotFound
	case http.StatusTooManyRequests:
		return errs.RateLimited
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return errs.Unavailable
	}
	return errs.Internal
}

// unreachable says what was tried and how to mend it.
func (c *client) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return errs.New(errs.Canceled, "", "%w", context.Canceled)
	}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		plain     tls.RecordHeaderError
		name      *net.DNSError
		slow      net.Error
	)
	cause, mend := err.Error(), "check the network and --url"
	var outer *url.Error
	if errors.As(err, &outer) {
		cause = outer.Err.Error()
	}
	switch {
	case errors.As(err, &authority):
		cause = "its certificate is signed by an authority that is not trusted here"
		if c.at.rootsFrom != "" {
			cause += " (trusted: " + c.at.rootsFrom + ")"
		}
		mend = "give the authority with --ca-file FILE (certwright serve keeps it in <data directory>/gateway/edge-ca.pem)"
	case errors.As(err, &host):
		mend = "use a name that the certificate is for in --url"
	case errors.As(err, &invalid):
		mend = "check the clock of this machine and the edge's certificate"
	case errors.As(err, &plain) || strings.Contains(cause, "server gave HTTP response to HTTPS client"):
		cause, mend = "it does not speak TLS", "if it is the plain edge on loopback, use http:// in --url"
	case errors.Is(err, syscall.ECONNREFUSED):
		cause, mend = "the connection is refused", "is certwright serve running there?"
	case errors.As(err, &name):
		cause, mend = "the name "+name.Name+" is not found", "check --url and the resolver"
	case errors.As(err, &slow) && slow.Timeout():
		cause, mend = "it does not answer in time", "is certwright serve running there, and does a firewall let us through?"
	}
	e := errs.New(errs.Unavailable, reasonUnreachable, "%w", err)
	e.Msg = "cannot reach Certwright at " + c.at.url.String() + " (from " + c.at.urlFrom + "): " + cause + "; " + mend
	return e
}
