package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// written is a file that export made.
type written struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Mode string `json:"mode"`
}

func (a *app) exportCertificate() *cobra.Command {
	var out, format string
	var withKey, keyToStdout bool
	req := &inventoryv1.ExportCertificateRequest{}
	cmd := &cobra.Command{
		Use: "export ID|NAME", Short: "Write a certificate, its chain and, if asked for, its key", Args: cobra.ExactArgs(1),
		Long: `Write a certificate and its chain as PEM: to standard output, or with --out as cert.pem, chain.pem and fullchain.pem into a directory.

--with-key adds privkey.pem, which only its owner can read (0600). It needs the permission keys.export, and every release of a key is in the audit trail.
A key is never written to standard output unless --key-to-stdout is given.`,
		Example: `  certwright certificates export www.example.org > fullchain.pem
  certwright certificates export www.example.org --out /etc/ssl/www --with-key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case format != "pem":
				return usage("--format is %q; allowed is pem", format)
			case keyToStdout && out != "":
				return usage("--key-to-stdout and --out exclude each other")
			case withKey && out == "" && !keyToStdout:
				return usage("--with-key needs --out DIR, where the key is written with mode 0600; --key-to-stdout writes it to standard output if that is meant")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.export(cmd.Context(), c, args[0], req, out, withKey || keyToStdout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "`directory` to write files into; it is made if it does not exist")
	f.StringVar(&format, "format", "pem", "`format` of what is written: pem")
	f.StringVar(&req.VersionId, "version", "", "`id` of the version; default: the current one")
	f.BoolVar(&withKey, "with-key", false, "also the private key")
	f.BoolVar(&keyToStdout, "key-to-stdout", false, "write the private key to standard output, before the certificate")
	must(cmd.MarkFlagDirname("out"))
	return cmd
}

func (a *app) export(ctx context.Context, c *client, given string, req *inventoryv1.ExportCertificateRequest, out string, withKey bool) error {
	id, err := a.findCertificate(ctx, given)
	if err != nil {
		return err
	}
	crt := &inventoryv1.ExportCertificateResponse{}
	if err := c.call(ctx, http.MethodPost, path("/v1/certificates/", id, ":export"), nil, req, crt); err != nil {
		return err
	}
	leaf := ended(crt.GetCertificatePem())
	full := leaf + ended(crt.GetChainPem())
	var key secret.Value
	if withKey {
		if key, err = a.exportKey(ctx, c, crt.GetKeyId(), full); err != nil {
			return err
		}
	}
	if out == "" {
		if a.output != outputTable && !withKey {
			return a.show(crt, nil)
		}
		_, err := a.Out.Write(append([]byte(ended(key.Reveal())), full...))
		return err
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "the directory cannot be made: %w", err)
	}
	files := []struct {
		name, text string
		mode       os.FileMode
	}{{"privkey.pem", ended(key.Reveal()), 0o600}, {"cert.pem", leaf, 0o644}, {"chain.pem", ended(crt.GetChainPem()), 0o644}, {"fullchain.pem", full, 0o644}}
	var done []written
	for _, f := range files {
		if f.text == "" {
			continue
		}
		to := filepath.Join(out, f.name)
		if err := writeFile(to, []byte(f.text), f.mode); err != nil {
			return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "%s cannot be written: %w", f.name, err)
		}
		done = append(done, written{f.name, to, map[bool]string{true: "0600", false: "0644"}[f.mode == 0o600]})
	}
	if a.output == outputTable {
		return writeTable(a.Out, done, []column[written]{
			{"FILE", func(w written) string { return w.Path }},
			{"MODE", func(w written) string { return w.Mode }},
		})
	}
	text, err := json.Marshal(map[string]any{"certificateId": id, "versionId": crt.GetVersionId(), "files": done})
	if err != nil {
		return err
	}
	return a.showJSON(text)
}

// exportKey asks for the key and makes sure that it is the certificate's.
func (a *app) exportKey(ctx context.Context, c *client, keyID, full string) (secret.Value, error) {
	if keyID == "" {
		return secret.Value{}, errs.New(errs.Precondition, "KEY_NOT_HELD", "Certwright does not hold the key of this version; it stayed where it was made")
	}
	answer := &keysv1.ExportKeyResponse{}
	if err := c.call(ctx, http.MethodPost, path("/v1/keys/", keyID, ":export"), nil, &keysv1.ExportKeyRequest{}, answer); err != nil {
		return secret.Value{}, err
	}
	if _, err := tls.X509KeyPair([]byte(full), []byte(answer.GetPrivateKeyPem())); err != nil {
		return secret.Value{}, errs.New(errs.Internal, "KEY_MISMATCH", "the key %s is not the certificate's; nothing was written", keyID)
	}
	return secret.New(answer.GetPrivateKeyPem()), nil
}

// ended makes sure that a PEM text ends its last line.
func ended(pem string) string {
	if pem == "" || strings.HasSuffix(pem, "\n") {
		return pem
	}
	return pem + "\n"
}
