package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

func (a *app) login() *cobra.Command {
	return &cobra.Command{
		Use: "login", Short: "Store where Certwright is and the token to show there", Args: cobra.NoArgs,
		Long: `Store where Certwright is and the token to show there, in ~/.config/certwright/cli.yaml (XDG_CONFIG_HOME is honoured), which only you can read (0600).

The token is read from --token-file or CERTWRIGHT_TOKEN, else asked for without echo; it is tried before it is stored. A copy of --ca-file is stored with it.`,
		Example: `  certwright login --url https://certwright.example.org --ca-file edge-ca.pem
  certwright login --url https://127.0.0.1:8443 --ca-file ~/.certwright/gateway/edge-ca.pem --token-file ~/.certwright/admin.token`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := a.storedPath()
			if file == "" {
				return errs.New(errs.Precondition, "NO_HOME", "there is no home directory to store it in; set XDG_CONFIG_HOME or HOME")
			}
			at, err := a.connection()
			if err != nil {
				return err
			}
			if at.token.IsZero() || at.tokenFrom == file { // a new token is wanted
				if at.token, err = a.askToken(at.url.String()); err != nil {
					return err
				}
			}
			c, err := newClient(at, a.Version)
			if err != nil {
				return err
			}
			err = c.call(cmd.Context(), http.MethodGet, "/v1/certificates", url.Values{"pageSize": {"1"}}, nil, nil)
			if err != nil && errs.KindOf(err) != errs.Forbidden { // a token that may do something else is a good one
				return err
			}
			text, err := yaml.Marshal(stored{URL: at.url.String(), Token: at.token.Reveal(), CA: string(at.roots)})
			if err != nil {
				return errs.New(errs.Internal, "", "writing YAML: %w", err)
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "the directory cannot be made: %w", err)
			}
			if err := writePrivate(file, text); err != nil {
				return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "%s cannot be written: %w", file, err)
			}
			fmt.Fprintf(a.Err, "logged in to %s; stored in %s\n", at.url, file)
			return nil
		},
	}
}

func (a *app) askToken(at string) (secret.Value, error) {
	if a.AskSecret == nil {
		return secret.Value{}, usage("there is no token; give --token-file FILE, or set %s", EnvToken)
	}
	token, err := a.AskSecret("Token for " + at + ": ")
	if err != nil {
		return secret.Value{}, errs.New(errs.Precondition, "TOKEN_MISSING", "the token cannot be read: %w", err)
	}
	if token = strings.TrimSpace(token); token == "" {
		return secret.Value{}, usage("no token was given")
	}
	return secret.New(token), nil
}
