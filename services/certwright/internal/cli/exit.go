package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/shared/errs"
)

// The exit codes. They are a promise to scripts: none is ever given another meaning.
const (
	ExitOK          = 0
	ExitError       = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitRefused     = 4
	ExitDenied      = 5
	ExitOrderFailed = 6
	ExitTimeout     = 7
	ExitUnavailable = 8
)

const exitCodesHelp = `Exit codes:
  0  done
  1  an error that none of the others fits, or interrupted
  2  the command line is wrong; nothing was sent
  3  what was named does not exist
  4  refused: the input is invalid, or the state of things does not allow it
  5  not permitted, or no valid token
  6  the order that was waited for failed, was rejected or was cancelled, or its deployment failed for good
  7  the time to wait has passed; what was started goes on
  8  Certwright cannot be reached, or cannot answer now`

// usageError is a mistake on the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// endedError is the bad end of what was waited for.
type endedError struct{ msg, reason string }

func (e *endedError) Error() string { return e.msg }

// waitedError says that the time to wait has passed.
type waitedError struct{ msg string }

func (e *waitedError) Error() string { return e.msg }

// stoppedError says that the person stopped waiting.
type stoppedError struct{ msg string }

func (e *stoppedError) Error() string { return e.msg }

func exitCode(err error) int {
	var (
		wrong   *usageError
		ended   *endedError
		waited  *waitedError
		stopped *stoppedError
	)
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &wrong):
		return ExitUsage
	case errors.As(err, &ended):
		return ExitOrderFailed
	case errors.As(err, &waited):
		return ExitTimeout
	case errors.As(err, &stopped):
		return ExitError
	}
	return exitOfKind(errs.KindOf(err))
}

func exitOfKind(k errs.Kind) int {
	switch k {
	case errs.NotFound:
		return ExitNotFound
	case errs.Invalid, errs.AlreadyExists, errs.Conflict, errs.Precondition, errs.Unimplemented:
		return ExitRefused
	case errs.Unauthenticated, errs.Forbidden:
		return ExitDenied
	case errs.RateLimited, errs.Unavailable, errs.Timeout:
		return ExitUnavailable
	case errs.Internal, errs.Canceled:
		return ExitError
	}
	return ExitError
}

// report tells a person what went wrong: the message, the violations one a line, the reason to look up, and when to try again.
func report(w io.Writer, cmd *cobra.Command, err error) {
	var wrong *usageError
	if errors.As(err, &wrong) {
		fmt.Fprintf(w, "error: %s\nSee \"%s --help\".\n", printable(wrong.msg), cmd.CommandPath())
		return
	}
	var stopped *stoppedError
	if errors.As(err, &stopped) {
		fmt.Fprintln(w, printable(stopped.msg))
		return
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "interrupted")
		return
	}
	e := errs.As(err)
	if e == nil {
		fmt.Fprintf(w, "error: %s\n", printable(err.Error()))
		var ended *endedError
		if errors.As(err, &ended) && ended.reason != "" {
			fmt.Fprintf(w, "  reason: %s\n", printable(ended.reason))
		}
		return
	}
	msg := e.Msg
	if len(e.Fields) == 0 { // else the text of the error repeats them
		msg = err.Error()
	}
	fmt.Fprintf(w, "error: %s\n", printable(msg))
	for _, f := range e.Fields {
		fmt.Fprintf(w, "  %s: %s\n", printable(f.Name), printable(f.Msg))
	}
	if e.Reason != "" {
		fmt.Fprintf(w, "  reason: %s\n", printable(e.Reason))
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(w, "  try again in %s\n", e.RetryAfter.Round(time.Second))
	}
}

// printable takes out what could command a terminal: texts quote CAs, DNS and users.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || !unicode.IsPrint(r) && r != ' ' {
			return '\uFFFD'
		}
		return r
	}, s)
}
