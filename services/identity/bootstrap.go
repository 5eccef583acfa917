package identity

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/secret"
)

// firstToken is the id of the token that the first start makes. It is fixed, so that of several replicas starting at once one succeeds.
const firstToken = "tok_00000000000000000000000000"

// bootstrap makes the first administrator's token. The file is written first, then the store: whatever a crash left is adopted at the next start.
//
//	tokens  file           what happens
//	none    none           a token is made, written to the file, and stored
//	none    there          its token is stored (a crash in between, or a new store)
//	some    none           nothing; with RecoverAdmin as if there were no tokens
//	some    known token    nothing
//	some    unknown token  a warning that says how to mend it; with RecoverAdmin its token is stored
func (s *server) bootstrap(ctx context.Context, cfg Config) error {
	path, err := filepath.Abs(cfg.BootstrapTokenFile)
	if err != nil {
		return fileError(err, cfg.BootstrapTokenFile)
	}
	page, err := s.tokens.Find(ctx, docstore.Query{Limit: 1})
	if err != nil {
		return err
	}
	first := len(page.Docs) == 0
	held, err := readToken(path)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if !first && !cfg.RecoverAdmin {
			s.logger.WarnContext(ctx, "the admin token file cannot be used; remove it, or mend it and start with recover_admin", "path", path, "error", err)
			return nil
		}
		return fileError(err, path)
	}
	switch {
	case !there && (first || cfg.RecoverAdmin):
		return s.writeAdmin(ctx, path, first)
	case !there:
		return nil
	case first:
		return s.adopt(ctx, path, held, firstToken)
	}
	doc, err := s.byHash(ctx, hashOf(held))
	switch {
	case err == nil && (administrates(doc, s.clk.Now()) || !cfg.RecoverAdmin):
		return nil
	case err == nil:
		return errs.New(errs.Precondition, "BOOTSTRAP_TOKEN_FILE", "recover_admin is set, but %s holds the token %s, which is revoked, expired or not an administrator's; remove the file to get a new token", path, doc.ID)
	case errs.KindOf(err) != errs.NotFound:
		return err
	case cfg.RecoverAdmin:
		return s.adopt(ctx, path, held, id.New("tok", s.clk.Now()))
	}
	s.logger.WarnContext(ctx, "the admin token file holds a token that is not known here; remove the file if it is of another installation, or start once with recover_admin to make its token an administrator's", "path", path)
	return nil
}

// writeAdmin makes a new administrator's token.
func (s *server) writeAdmin(ctx context.Context, path string, first bool) error {
	made, tokenID := newSecret(), firstToken
	if !first {
		tokenID = id.New("tok", s.clk.Now())
	}
	if err := writeToken(path, made); err != nil {
		return fileError(err, path)
	}
	err := s.adopt(ctx, path, made, tokenID)
	if errs.ReasonOf(err) == "ADMIN_TOKEN_EXISTS" { // another replica was first: this file would hold a token that nobody knows
		s.logger.InfoContext(ctx, "another replica made the admin token", "path", path)
		return os.Remove(path)
	}
	return err
}

// adopt stores the file's token as an administrator's.
func (s *server) adopt(ctx context.Context, path, held, tokenID string) error {
	doc := docstore.Doc[token]{
		Meta: docstore.Meta{ID: tokenID, Team: authz.AllTeams},
		Body: token{DisplayName: "administrator", Permissions: []string{"*"}, Hash: hashOf(held), Last4: held[len(held)-4:], ExpiresAt: clock.Never},
	}
	if err := s.tokens.Insert(ctx, &doc); err != nil {
		if errs.KindOf(err) != errs.AlreadyExists {
			return err
		}
		if _, known := s.byHash(ctx, doc.Body.Hash); known == nil {
			return nil
		}
		return errs.New(errs.AlreadyExists, "ADMIN_TOKEN_EXISTS", "there is an administrator's token already")
	}
	s.logger.InfoContext(ctx, "admin token written", "path", path)
	return nil
}

// readToken reads a file that holds nothing but a token. An empty one is as good as none, and removed.
func readToken(path string) (string, error) {
	switch info, err := os.Stat(path); {
	case err != nil:
		return "", err
	case info.Size() == 0: // a crash before the first byte
		return "", errors.Join(os.Remove(path), fs.ErrNotExist)
	}
	v, err := secret.FromFile(path)
	if err != nil {
		return "", err
	}
	if !wellFormed(v.Reveal()) {
		return "", errs.New(errs.Precondition, "BOOTSTRAP_TOKEN_FILE", "it does not hold an API token")
	}
	return v.Reveal(), nil
}

// writeToken makes the file, durably. It never overwrites one; a file that could not be written whole is removed.
func writeToken(path, held string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	_, err = f.WriteString(held + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func fileError(err error, path string) error {
	return errs.New(errs.Precondition, "BOOTSTRAP_TOKEN_FILE", "the admin token file %s cannot be used: %w; mend or remove the file, or set identity.bootstrap_token_file to another path", path, err)
}
