package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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

// export is what a person wants of a certificate.
type export struct {
	format, out, passwordFile, alias string
	key, keyToStdout                 bool
	request                          inventoryv1.ExportCertificateRequest
}

// keystores are the formats that hold the key with the certificate, as the API calls them, and the names of their files.
var keystores = map[string]struct{ format, file string }{
	"pkcs12": {"PKCS12", "keystore.p12"}, "pkcs12-legacy": {"PKCS12_LEGACY", "keystore.p12"}, "jks": {"JKS", "keystore.jks"},
}

func (e *export) check() error {
	formats := []string{"pem", "der", "csr", "pkcs12", "pkcs12-legacy", "jks"}
	_, keystore := keystores[e.format]
	switch {
	case !slices.Contains(formats, e.format):
		return usage("--format is %q; allowed are %s", e.format, strings.Join(formats, ", "))
	case e.keyToStdout && e.out != "":
		return usage("--key-to-stdout and --out exclude each other")
	case keystore && e.passwordFile == "":
		return usage("--format %s needs --password-file, the file that holds the keystore's password (- for standard input)", e.format)
	case keystore && e.out == "" && !e.keyToStdout:
		return usage("--format %s has the key in it: it needs --out DIR, where it is written with mode 0600; --key-to-stdout writes it to standard output if that is meant", e.format)
	case !keystore && (e.passwordFile != "" || e.alias != ""):
		return usage("--password-file and --alias go with the formats pkcs12, pkcs12-legacy and jks, not with %s", e.format)
	case e.key && e.format != "pem":
		return usage("--with-key goes with --format pem; a keystore has the key in it, and %s never", e.format)
	case e.key && e.out == "" && !e.keyToStdout:
		return usage("--with-key needs --out DIR, where the key is written with mode 0600; --key-to-stdout writes it to standard output if that is meant")
	}
	return nil
}

func (a *app) exportCertificate() *cobra.Command {
	e := &export{}
	cmd := &cobra.Command{
		Use: "export ID|NAME", Short: "Write a certificate, its chain and, if asked for, its key", Args: cobra.ExactArgs(1),
		Long: `Write a certificate and its chain as PEM: to standard output, or with --out as cert.pem, chain.pem and fullchain.pem into a directory.
--format der writes the certificate alone (cert.der), csr the request that it was made from (request.csr).

--with-key adds privkey.pem, which only its owner can read (0600). The formats pkcs12, pkcs12-legacy (for readers that know only 3DES) and jks hold
certificate, chain and key, encrypted with a password. Whatever has the key in it needs the permission keys.export, and every release of a key is in
the audit trail. It is never written to standard output unless --key-to-stdout is given.`,
		Example: `  certwright certificates export www.example.org > fullchain.pem
  certwright certificates export www.example.org --out /etc/ssl/www --with-key
  certwright certificates export www.example.org --out /etc/tomcat --format pkcs12 --password-file /etc/tomcat/keystore.password`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.check(); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.export(cmd.Context(), c, args[0], e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.out, "out", "", "`directory` to write files into; it is made if it does not exist")
	f.StringVar(&e.format, "format", "pem", "`format` of what is written: pem, der, csr, pkcs12, pkcs12-legacy or jks")
	f.StringVar(&e.passwordFile, "password-file", "", "`file` that holds the password of a keystore, - for standard input")
	f.StringVar(&e.alias, "alias", "", "`name` of the entry in a jks keystore (default \"certificate\")")
	f.StringVar(&e.request.VersionId, "version", "", "`id` of the version; default: the current one")
	f.BoolVar(&e.key, "with-key", false, "also the private key")
	f.BoolVar(&e.keyToStdout, "key-to-stdout", false, "write the private key, or the keystore, to standard output; a key comes before the certificate")
	must(cmd.MarkFlagDirname("out"))
	must(cmd.MarkFlagFilename("password-file"))
	return cmd
}

// file is one that export writes.
type file struct {
	name    string
	content []byte
	mode    os.FileMode
}

func (a *app) export(ctx context.Context, c *client, given string, e *export) error {
	id, err := a.findCertificate(ctx, given)
	if err != nil {
		return err
	}
	crt := &inventoryv1.ExportCertificateResponse{}
	if err := c.call(ctx, http.MethodPost, path("/v1/certificates/", id, ":export"), nil, &e.request, crt); err != nil {
		return err
	}
	files, err := a.exported(ctx, c, crt, e)
	if err != nil {
		return err
	}
	if e.out == "" {
		if e.format == "pem" && a.output != outputTable && !e.keyToStdout {
			return a.show(crt, nil)
		}
		for _, f := range files {
			if e.format == "pem" && f.name != "privkey.pem" && f.name != "fullchain.pem" {
				continue // the parts are in the whole
			}
			if _, err := a.Out.Write(f.content); err != nil {
				return err
			}
		}
		return nil
	}
	if err := os.MkdirAll(e.out, 0o750); err != nil {
		return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "the directory cannot be made: %w", err)
	}
	var done []written
	for _, f := range files {
		to := filepath.Join(e.out, f.name)
		if err := writeFile(to, f.content, f.mode); err != nil {
			return errs.New(errs.Precondition, "FILE_NOT_WRITTEN", "%s cannot be written: %w", f.name, err)
		}
		done = append(done, written{f.name, to, fmt.Sprintf("%04o", f.mode)})
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

// exported makes the files of the format, the key first.
func (a *app) exported(ctx context.Context, c *client, crt *inventoryv1.ExportCertificateResponse, e *export) ([]file, error) {
	leaf := ended(crt.GetCertificatePem())
	full := leaf + ended(crt.GetChainPem())
	switch e.format {
	case "der":
		block, _ := pem.Decode([]byte(leaf))
		if block == nil {
			return nil, errs.New(errs.Internal, "", "the answer holds no certificate")
		}
		return []file{{"cert.der", block.Bytes, 0o644}}, nil
	case "csr":
		if err := held(crt); err != nil {
			return nil, err
		}
		answer := &keysv1.GetCSRResponse{}
		err := c.call(ctx, http.MethodGet, path("/v1/keys/", crt.GetKeyId(), "/csr"), nil, nil, answer)
		return []file{{"request.csr", []byte(answer.GetCsrPem()), 0o644}}, err
	case "pem":
		var files []file
		if e.key || e.keyToStdout {
			key, err := a.exportKey(ctx, c, crt, full)
			if err != nil {
				return nil, err
			}
			files = append(files, file{"privkey.pem", []byte(ended(key.Reveal())), 0o600})
		}
		files = append(files, file{"cert.pem", []byte(leaf), 0o644})
		if chain := ended(crt.GetChainPem()); chain != "" {
			files = append(files, file{"chain.pem", []byte(chain), 0o644})
		}
		return append(files, file{"fullchain.pem", []byte(full), 0o644}), nil
	}
	if err := held(crt); err != nil {
		return nil, err
	}
	password, err := a.secretFile(e.passwordFile)
	if err != nil {
		return nil, err
	}
	k, answer := keystores[e.format], &keysv1.ExportKeyResponse{}
	err = c.call(ctx, http.MethodPost, path("/v1/keys/", crt.GetKeyId(), ":export"), nil,
		&keysv1.ExportKeyRequest{Format: k.format, Password: password, Alias: e.alias}, answer)
	return []file{{k.file, answer.GetContent(), 0o600}}, err
}

// held refuses what needs a key that stayed where it was made.
func held(crt *inventoryv1.ExportCertificateResponse) error {
	if crt.GetKeyId() == "" {
		return errs.New(errs.Precondition, "KEY_NOT_HELD", "Certwright does not hold the key of this version; it stayed where it was made")
	}
	return nil
}

// exportKey asks for the key and makes sure that it is the certificate's.
func (a *app) exportKey(ctx context.Context, c *client, crt *inventoryv1.ExportCertificateResponse, full string) (secret.Value, error) {
	if err := held(crt); err != nil {
		return secret.Value{}, err
	}
	keyID := crt.GetKeyId()
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
func ended(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}
