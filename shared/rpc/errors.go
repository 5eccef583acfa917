// Package rpc is the gRPC plumbing between services: one mapping of errors in each direction, servers and clients that log, trace and
// recover, mutual TLS, and connections inside one process.
//
// It knows no service and no rule; who may call what is package authz.
package rpc

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/certwright/certwright/shared/errs"
)

// Domain is the domain of every ErrorInfo.
const Domain = "certwright"

// hiddenMsg is what a caller gets to see of an error that nobody classified.
const hiddenMsg = "internal error; the log of the service has the details"

// CodeOf maps a kind to its gRPC code. No two kinds share a code, so the way back loses nothing.
func CodeOf(k errs.Kind) codes.Code {
	switch k {
	case errs.Internal:
		return codes.Internal
	case errs.Invalid:
		return codes.InvalidArgument
	case errs.NotFound:
		return codes.NotFound
	case errs.AlreadyExists:
		return codes.AlreadyExists
	case errs.Conflict:
		return codes.Aborted
	case errs.Precondition:
		return codes.FailedPrecondition
	case errs.Unauthenticated:
		return codes.Unauthenticated
	case errs.Forbidden:
		return codes.PermissionDenied
	case errs.RateLimited:
		return codes.ResourceExhausted
	case errs.Unavailable:
		return codes.Unavailable
	case errs.Timeout:
		return codes.DeadlineExceeded
	case errs.Canceled:
		return codes.Canceled
	case errs.Unimplemented:
		return codes.Unimplemented
	}
	return codes.Internal
}

// KindOf maps a gRPC code back to a kind.
func KindOf(c codes.Code) errs.Kind {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange:
		return errs.Invalid
	case codes.NotFound:
		return errs.NotFound
	case codes.AlreadyExists:
		return errs.AlreadyExists
	case codes.Aborted:
		return errs.Conflict
	case codes.FailedPrecondition:
		return errs.Precondition
	case codes.Unauthenticated:
		return errs.Unauthenticated
	case codes.PermissionDenied:
		return errs.Forbidden
	case codes.ResourceExhausted:
		return errs.RateLimited
	case codes.Unavailable:
		return errs.Unavailable
	case codes.DeadlineExceeded:
		return errs.Timeout
	case codes.Canceled:
		return errs.Canceled
	case codes.Unimplemented:
		return errs.Unimplemented
	case codes.OK, codes.Unknown, codes.DataLoss, codes.Internal:
		return errs.Internal
	}
	return errs.Internal
}

// Classify finds the *errs.Error in err. A context's end and a gRPC status (made by gRPC itself or by generated code) are classified; anything
// else is Internal with a message that hides it, and err as its cause. So is an Internal error without a reason: its text was not written for callers.
func Classify(err error) *errs.Error {
	if e := errs.As(err); e != nil {
		if e.Kind == errs.Internal && e.Reason == "" {
			return hidden(err)
		}
		return e
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errs.New(errs.Canceled, "", "the call was canceled")
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.Timeout, "", "the call took longer than its deadline")
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown && s.Code() != codes.Internal {
		return fromStatus(s)
	}
	return hidden(err)
}

func hidden(cause error) *errs.Error {
	e := errs.New(errs.Internal, "", "%w", cause)
	e.Msg = hiddenMsg
	return e
}

// ToStatus maps err to the status that the caller gets: its code, message, ErrorInfo (domain, reason, metadata), BadRequest with the field
// violations, and RetryInfo. A nil err is OK.
func ToStatus(err error) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	e := Classify(err)
	s := status.New(CodeOf(e.Kind), text(e.Msg))
	info := &errdetails.ErrorInfo{Reason: text(errs.ReasonOf(e)), Domain: Domain}
	for k, v := range e.Meta {
		if info.Metadata == nil {
			info.Metadata = make(map[string]string, len(e.Meta))
		}
		info.Metadata[text(k)] = text(v)
	}
	details := []protoadapt.MessageV1{info}
	if len(e.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range e.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: text(f.Name), Description: text(f.Msg)})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if full, err := s.WithDetails(details...); err == nil {
		return full
	}
	return s // never seen; the code and message still go out
}

// text makes s fit for protobuf: messages quote what users and CAs sent, which need not be UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// FromError maps what a gRPC client returned to an *errs.Error; nil and an *errs.Error stay as they are.
func FromError(err error) error {
	if err == nil {
		return nil
	}
	if e := errs.As(err); e != nil {
		return err
	}
	s, ok := status.FromError(err)
	if !ok { // e.g. the end of the caller's own context, or io.EOF of a stream
		switch {
		case errors.Is(err, context.Canceled):
			return errs.New(errs.Canceled, "", "%w", err)
		case errors.Is(err, context.DeadlineExceeded):
			return errs.New(errs.Timeout, "", "%w", err)
		}
		return err
	}
	return fromStatus(s)
}

func fromStatus(s *status.Status) *errs.Error {
	kind := KindOf(s.Code())
	e := errs.New(kind, "", "%s", s.Message())
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetReason() != strings.ToUpper(kind.String()) { // else it stands for none, see errs.ReasonOf
				e.Reason = d.GetReason()
			}
			e.Meta = d.GetMetadata()
		case *errdetails.BadRequest:
			for _, f := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, errs.Field{Name: f.GetField(), Msg: f.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}
