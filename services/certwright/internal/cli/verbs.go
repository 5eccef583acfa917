package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/secret"
)

// verb is a command that talks to the edge and takes exactly n arguments.
func (a *app) verb(use, short string, n int, run func(ctx context.Context, c *client, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(n), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, args)
		},
	}
}

// finder turns what was given, an id or a name, into an id.
type finder func(ctx context.Context, given string) (string, error)

// kind is what the verbs about one thing of a kind have in common.
type kind struct {
	path     string // of all of them, with a slash at the end
	find     finder
	complete cobra.CompletionFunc
}

// kindOf is a kind whose things have names; what begins with the prefix is an id.
func kindOf[R page, T named](a *app, l listing[R, T], prefix string) kind {
	find := func(ctx context.Context, given string) (string, error) { return resolve(ctx, a, l, prefix, given) }
	return kind{l.path + "/", find, ids(a, l, 1)}
}

// nameless is a kind whose things have nothing but an id; text is how a completion shows one.
func nameless[R page, T proto.Message](a *app, l listing[R, T], text func(T) string) kind {
	return kind{l.path + "/", asGiven, suggestions(a, 1, l, text)}
}

func asGiven(_ context.Context, given string) (string, error) { return given, nil }

// about is a verb that makes one call about one thing and shows the answer. custom is ":verb", or "" for the thing itself; without a request it only reads.
func about[T proto.Message](a *app, k kind, use, short, custom string, req proto.Message, show func(T) error) *cobra.Command {
	cmd := a.verb(use, short, 1, func(ctx context.Context, c *client, args []string) error {
		id, err := k.find(ctx, args[0])
		if err != nil {
			return err
		}
		method := http.MethodPost
		if req == nil {
			method = http.MethodGet
		}
		answer := fresh[T]()
		if err := c.call(ctx, method, path(k.path, id, custom), nil, req, answer); err != nil {
			return err
		}
		return show(answer)
	})
	cmd.ValidArgsFunction = k.complete
	return cmd
}

// deleting is the verb "delete": it asks first, unless --yes. finish may be nil; it tells what the answer says.
func (a *app) deleting(k kind, use, short, what string, answer proto.Message, finish func()) *cobra.Command {
	var sure bool
	cmd := a.verb(use, short, 1, func(ctx context.Context, c *client, args []string) error {
		id, err := k.find(ctx, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(sure, "Delete the "+what+" "+id+"?"); err != nil {
			return err
		}
		if err := c.call(ctx, http.MethodDelete, path(k.path, id), nil, nil, answer); err != nil {
			return err
		}
		return a.show(answer, func(w io.Writer) error {
			fmt.Fprintf(w, "deleted %s\n", printable(id))
			if finish != nil {
				finish()
			}
			return nil
		})
	})
	cmd.ValidArgsFunction = k.complete
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

// tested shows what a test found, after what it did, and fails when it did not succeed.
func (a *app) tested(r testAnswer, steps []string, fine, failed string) error {
	err := a.show(r, func(w io.Writer) error {
		for _, s := range steps {
			fmt.Fprintln(w, printable(s))
		}
		if r.GetOk() {
			fmt.Fprintln(w, fine)
		} else if r.GetProblem() != nil {
			fmt.Fprintln(w, printable(why(r.GetProblem())))
		}
		return nil
	})
	if err != nil || r.GetOk() {
		return err
	}
	return failedTest(failed, r.GetProblem())
}

type testAnswer interface {
	proto.Message
	GetOk() bool
	GetProblem() *typesv1.Problem
}

// failedTest is the error of a test that ran and did not succeed.
func failedTest(what string, p *typesv1.Problem) error {
	if p.GetReason() != "" {
		what += " (" + p.GetReason() + ")"
	}
	return errors.New(what)
}

// confirm asks at a terminal; elsewhere --yes is wanted.
func (a *app) confirm(sure bool, question string) error {
	if sure {
		return nil
	}
	if a.AskSecret == nil {
		return usage("nobody can be asked here; add --yes if it is meant")
	}
	fmt.Fprintf(a.Err, "%s [y/N] ", printable(question))
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && line == "" {
		return &stoppedError{"nothing was done"}
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &stoppedError{"nothing was done"}
}

// requestID makes a repeat of the call safe.
func (a *app) requestID() string { return id.New("req", a.Clock.Now()) }

// secretFile reads a secret from the file that a flag names, or from standard input for "-"; "" for none.
func (a *app) secretFile(file string) (string, error) {
	switch file {
	case "":
		return "", nil
	case "-":
		line, err := bufio.NewReader(io.LimitReader(a.In, 1<<20)).ReadString('\n')
		if line = strings.TrimSpace(line); line == "" {
			return "", errs.New(errs.Precondition, "SECRET_FILE_UNREADABLE", "standard input holds no secret: %w", err)
		}
		return line, nil
	}
	s, err := secret.FromFile(file)
	return s.Reveal(), err
}

// textFile reads a file of PEM certificates named by a flag; "" for none.
func textFile(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	pem, err := readPEM(file)
	return string(pem), err
}

// keepSecret writes a secret that is shown once to a new file 0600.
func keepSecret(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "the secret cannot be written: %w", err)
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}
