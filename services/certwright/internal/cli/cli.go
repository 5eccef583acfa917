// Package cli is the command line of Certwright: a client of the REST edge, and the frame that the program's other commands are hung into.
//
// Results go to stdout and everything else to stderr, so that a script reads the one and a person the other. No secret is ever taken as the value of
// a flag, and none is printed unless the command was asked to make or show that very secret.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certwright/certwright/shared/clock"
)

// Options is the surroundings of one run of the program.
type Options struct {
	// Version of the program.
	Version string
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	// Getenv answers "" for a variable that is not set.
	Getenv func(string) string
	// Home is the user's home directory, empty when there is none.
	Home  string
	Clock clock.Clock
	// Zone is the one that moments of today are shown in to people.
	Zone *time.Location
	// AskSecret reads one line without echo; nil when nobody sits at a terminal.
	AskSecret func(prompt string) (string, error)
}

// System is the surroundings of the real process.
func System(version string) Options {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	o := Options{
		Version: version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Home: home, Clock: clock.System(), Zone: time.Local,
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		o.AskSecret = func(prompt string) (string, error) {
			if _, err := io.WriteString(os.Stderr, prompt); err != nil {
				return "", err
			}
			line, err := term.ReadPassword(fd)
			_, _ = io.WriteString(os.Stderr, "\n")
			return string(line), err
		}
	}
	return o
}

// app is one run: the surroundings and the flags that every command has.
type app struct {
	Options
	url, tokenFile, caFile, output string

	conn *client
}

// Run executes the command line args (without the program's name) and returns the exit code (see ExitOK and the others). more are commands beside those
// of the client; they use the streams of their root.
func Run(ctx context.Context, o Options, args []string, more ...*cobra.Command) int {
	a := &app{Options: o}
	root := a.root(more)
	started := false
	each(root, func(c *cobra.Command) {
		if run := c.RunE; run != nil {
			c.RunE = func(c *cobra.Command, args []string) error {
				started = true
				return run(c, args)
			}
		}
	})
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var wrong *usageError
	if !started && !errors.As(err, &wrong) { // what cobra itself refuses
		err = usage("%s", err.Error())
	}
	report(a.Err, cmd, err)
	return exitCode(err)
}

func (a *app) root(more []*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:           "certwright",
		Short:         "Keeps every TLS certificate valid, from request to retirement",
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Certwright keeps every TLS certificate of an organisation valid, from request to retirement.

"certwright serve" runs the platform. All other commands talk to a running one over its REST edge. They find it, and the token to show there, in this order:
  1. the flags --url, --token-file and --ca-file
  2. CERTWRIGHT_URL, CERTWRIGHT_TOKEN or CERTWRIGHT_TOKEN_FILE, and CERTWRIGHT_CA_FILE
  3. what "certwright login" stored in ~/.config/certwright/cli.yaml
  4. "certwright serve" on this machine with its default data directory ~/.certwright

` + exitCodesHelp,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%s", err.Error()) })
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))

	f := root.PersistentFlags()
	f.StringVar(&a.url, "url", "", "base `URL` of the edge (default "+DefaultURL+")")
	f.StringVar(&a.tokenFile, "token-file", "", "`file` that holds the API token")
	f.StringVar(&a.caFile, "ca-file", "", "PEM `file` of the authorities that the edge's certificate is verified with, instead of the system's")
	f.StringVarP(&a.output, "output", "o", outputTable, "`format` of results: table, json or yaml")
	complete(root, "output", outputTable, outputJSON, outputYAML)
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch a.output {
		case outputTable, outputJSON, outputYAML:
			return nil
		}
		return usage("--output is %q; allowed are table, json and yaml", a.output)
	}

	root.AddCommand(more...)
	root.AddCommand(
		a.login(), a.certificates(), a.orders(), a.challenges(), a.issuers(), a.accounts(), a.dns(), a.routes(), a.targets(), a.bindings(), a.deployments(), a.renewals(),
		a.channels(), a.deliveries(), a.tokens(), a.audit(), a.events(), a.version(), a.docs(),
	)
	return root
}

// group is a noun. Alone it shows its verbs; an unknown verb is a mistake.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		c.SuggestionsMinimumDistance = 2
		hint := ""
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			hint = "; did you mean " + strings.Join(s, " or ") + "?"
		}
		return usage("%q is not a command of %q%s", args[0], c.CommandPath(), hint)
	}}
	g.AddCommand(verbs...)
	return g
}

// each visits c and all commands below it.
func each(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		each(sub, visit)
	}
}

// complete offers fixed values for a flag.
func complete(c *cobra.Command, flag string, values ...string) {
	must(c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// must guards what only a mistake in this package can make fail: a flag name that does not exist.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
