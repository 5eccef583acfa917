package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

// Serving is what the command line says of "certwright serve".
type Serving struct {
	// File is the configuration file, "" for none.
	File string
	// Flags are keys of the configuration with the values that were given.
	Flags map[string]string
	// Started has to be called once everything is ready.
	Started func(Started)
}

// Started is what came up.
type Started struct {
	// URL of the edge.
	URL string
	// TokenFile holds the first administrator's token.
	TokenFile string
	// CAFile holds the authority of the edge's certificate, "" when it is not the local one.
	CAFile string
}

// Serve is the command that runs the platform; run does it, until ctx ends.
func Serve(run func(ctx context.Context, s Serving) error) *cobra.Command {
	var file, data, https, http string
	c := &cobra.Command{
		Use: "serve", Short: "Run the platform in one process, with everything embedded", Args: cobra.NoArgs,
		Long: `Run the platform in one process: all services, an embedded NATS server, and SQLite files (or MongoDB, with MONGODB_URI). Only the edge and the responders of
challenges listen. It stops at the first interrupt, when what is under way has come to a safe point.

A setting comes from its default, the file given by --config, the environment (CERTWRIGHT_<KEY>), or a flag; the later wins.`,
		Example: `  certwright serve
  certwright serve --data-dir /var/lib/certwright --config /etc/certwright/certwright.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := Serving{File: file, Flags: map[string]string{}}
			for key, flag := range map[string]string{"data_dir": "data-dir", "gateway.https": "https", "gateway.http": "http"} {
				if f := cmd.Flags().Lookup(flag); f.Changed {
					s.Flags[key] = f.Value.String()
				}
			}
			if dir, given := s.Flags["data_dir"]; given && dir != "" {
				full, err := filepath.Abs(dir)
				if err != nil {
					return usage("--data-dir: %s", err.Error())
				}
				s.Flags["data_dir"] = full
			}
			s.Started = func(up Started) {
				w := cmd.ErrOrStderr()
				fmt.Fprintf(w, "Certwright is ready at %s\n  API documentation: %s/docs\n  administrator's token: %s\n", up.URL, up.URL, up.TokenFile)
				fmt.Fprintf(w, "  other programs on this machine:\n    export %s=%s %s=%s", EnvURL, up.URL, EnvTokenFile, up.TokenFile)
				if up.CAFile != "" {
					fmt.Fprintf(w, " %s=%s", EnvCAFile, up.CAFile)
				}
				fmt.Fprintln(w)
			}
			return run(cmd.Context(), s)
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data-dir", "", "`directory` of everything that is stored (default ~/.certwright)")
	f.StringVar(&file, "config", "", "YAML `file` of settings")
	f.StringVar(&https, "https", "", "`address` of the edge, host:port (default :8443)")
	f.StringVar(&http, "http", "", "`address` of the edge without TLS, loopback only, such as 127.0.0.1:8080 (default none)")
	must(c.MarkFlagDirname("data-dir"))
	must(c.MarkFlagFilename("config", "yaml", "yml"))
	return c
}
