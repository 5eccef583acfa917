package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
)

// fail answers err as google.rpc.Status in JSON. httpStatus zero means that of the error's kind.
func (e *edge) fail(w http.ResponseWriter, r *http.Request, httpStatus int, err error) {
	s := rpc.ToStatus(err)
	if httpStatus == 0 {
		httpStatus = runtime.HTTPStatusFromCode(s.Code())
	}
	known := rpc.Classify(err)
	switch {
	case known.Kind == errs.Internal:
		e.logger.ErrorContext(r.Context(), "request failed inside", "method", r.Method, "path", r.URL.Path, "error", err)
	case known.Kind == errs.Unauthenticated && known.Reason == authz.ReasonTokenMissing:
		w.Header().Set("WWW-Authenticate", `Bearer realm="certwright"`)
	case known.Kind == errs.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Bearer realm="certwright", error="invalid_token"`)
	}
	if known.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(seconds(known.RetryAfter)))
	}
	writeStatus(w, httpStatus, s)
}

func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

func writeStatus(w http.ResponseWriter, httpStatus int, s *status.Status) {
	body, err := protojson.Marshal(s.Proto())
	if err != nil { // a detail that this program does not know
		p := s.Proto()
		p.Details = nil
		body, _ = protojson.Marshal(p)
	}
	var compact bytes.Buffer // protojson's blanks differ from build to build
	if json.Compact(&compact, body) == nil {
		body = compact.Bytes()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, sent as such with nosniff: no browser takes it for a page
}

// onError answers what a call ended with: an *errs.Error of a sibling, or a status of grpc-gateway itself about the request.
func (e *edge) onError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if s, ok := status.FromError(err); ok && errs.As(err) == nil && s.Code() == codes.InvalidArgument {
		c := callOf(r.Context())
		err = explain(s.Message(), c.body, c.route.bodyMessage())
	}
	e.fail(w, r, 0, err)
}

// onRoutingError answers what find should have refused already.
func (e *edge) onRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	e.fail(w, r, httpStatus, errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "there is no %s %q here; /openapi.json and /docs list every path", r.Method, r.URL.Path))
}
