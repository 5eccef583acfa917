package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

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

// deleting is the verb "delete": it asks first, unless --yes. finish may be nil; it tells what the answer says.
func (a *app) deleting(use, short, what string, find func(ctx context.Context, given string) (string, error), where string, answer proto.Message, finish func()) *cobra.Command {
	var sure bool
	cmd := a.verb(use, short, 1, func(ctx context.Context, c *client, args []string) error {
		id, err := find(ctx, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(sure, "Delete the "+what+" "+id+"?"); err != nil {
			return err
		}
		if err := c.call(ctx, http.MethodDelete, path(where, id), nil, nil, answer); err != nil {
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
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

// asGiven is the find of what has no name beside its id.
func asGiven(_ context.Context, given string) (string, error) { return given, nil }

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

// secretFile reads a secret from a file, or from standard input for "-".
func (a *app) secretFile(file string) (secret.Value, error) {
	if file != "-" {
		return secret.FromFile(file)
	}
	line, err := bufio.NewReader(io.LimitReader(a.In, 1<<20)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return secret.Value{}, errs.New(errs.Precondition, "SECRET_FILE_UNREADABLE", "standard input holds no secret: %w", err)
	}
	return secret.New(line), nil
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
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
