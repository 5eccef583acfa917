// Package errs is the one error type that crosses layers and services.
//
// An adapter classifies a foreign error once, at the border, by its Kind. The Reason is a public, stable
// identifier listed in docs/errors.md with its cause and remedy. Anything that is not an *Error is Internal.
package errs

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what sort of thing went wrong, and so how every caller has to react.
type Kind uint8

// The kinds. The zero value is Internal, so that a forgotten kind is never mistaken for a user's fault.
const (
	Internal Kind = iota
	Invalid
	NotFound
	AlreadyExists
	Conflict
	Precondition
	Unauthenticated
	Forbidden
	RateLimited
	Unavailable
	Timeout
	Canceled
	Unimplemented
)

var kindNames = [...]string{
	"internal", "invalid", "not_found", "already_exists", "conflict", "precondition", "unauthenticated",
	"forbidden", "rate_limited", "unavailable", "timeout", "canceled", "unimplemented",
}

// Kinds lists every kind, for tests that walk them all.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i) //nolint:gosec // the table has 13 rows
	}
	return all
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Field is one violation of an input: which field, what was given and allowed, and how to mend it.
type Field struct {
	Name string // path in JSON form, e.g. "spec.names[3]"
	Msg  string
}

// Error is a classified error. Msg is for people; Reason is for programs.
type Error struct {
	Kind       Kind
	Reason     string // e.g. "REQUEST_ID_REUSED"; empty means the kind's own name
	Msg        string
	RetryAfter time.Duration // zero: unknown
	Fields     []Field
	Meta       map[string]string // shown to the caller beside the reason
	cause      error
}

// New makes an error of kind k; the message is formatted like fmt.Errorf and %w keeps the cause.
func New(k Kind, reason, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...) //nolint:err113 // this is the constructor
	return &Error{Kind: k, Reason: reason, Msg: wrapped.Error(), cause: errors.Unwrap(wrapped)}
}

// Error returns the message with the field violations, if any.
func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Msg
	}
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Name + ": " + f.Msg
	}
	return e.Msg + " (" + strings.Join(parts, "; ") + ")"
}

// Unwrap returns the cause given by %w, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports equality by kind and reason, so that package-level sentinels of this type work with errors.Is.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error) //nolint:errorlint // Is compares one link of the chain
	return ok && t.Kind == e.Kind && t.Reason == e.Reason
}

// WithField returns a copy with one more field violation.
func (e *Error) WithField(name, format string, args ...any) *Error {
	c := *e
	c.Fields = append(append([]Field(nil), e.Fields...), Field{Name: name, Msg: fmt.Sprintf(format, args...)})
	return &c
}

// WithMeta returns a copy with one more key and value for programs.
func (e *Error) WithMeta(key, value string) *Error {
	c := *e
	c.Meta = make(map[string]string, len(e.Meta)+1)
	for k, v := range e.Meta {
		c.Meta[k] = v
	}
	c.Meta[key] = value
	return &c
}

// WithRetryAfter returns a copy that says when to try again.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// As returns the first *Error in the chain of err, or nil.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// KindOf classifies any error: the kind of the first *Error in its chain, else Internal. Nil answers Internal too, so who looks for another kind
// need not look for nil first.
func KindOf(err error) Kind {
	if e := As(err); e != nil {
		return e.Kind
	}
	return Internal
}

// ReasonOf returns the public reason of err, or the kind's name in upper case.
func ReasonOf(err error) string {
	if e := As(err); e != nil && e.Reason != "" {
		return e.Reason
	}
	return strings.ToUpper(KindOf(err).String())
}

// Transient reports whether trying again later, unchanged, can succeed.
func Transient(err error) bool {
	switch KindOf(err) {
	case Internal, RateLimited, Unavailable, Timeout, Canceled, Conflict:
		return true
	case Invalid, NotFound, AlreadyExists, Precondition, Unauthenticated, Forbidden, Unimplemented:
		return false
	}
	return true
}
