// Package identity knows who may do what, and who did what: API tokens and the audit trail. It must never store, log or show a token's secret; what
// is kept is its SHA-256, which is enough for secrets of 256 random bits.
package identity

import (
	"context"
	"path/filepath"
	"time"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/service"
)

// Config of the service.
type Config struct {
	// BootstrapTokenFile is where the first start writes an administrator's token, mode 0600; empty for admin.token in the service's data directory.
	BootstrapTokenFile string `yaml:"bootstrap_token_file" doc:"File that gets an administrator's token at the first start, mode 0600; default admin.token in the data directory"`
	// RecoverAdmin makes the token in BootstrapTokenFile an administrator's, and writes a new one when the file is not there.
	RecoverAdmin bool `yaml:"recover_admin" doc:"Make the token in bootstrap_token_file an administrator's, or write a new one when the file is missing: for when every administrator's token is lost"`
}

// Defaults returns the configuration of a first start.
func Defaults() Config { return Config{} }

// Run runs the service until ctx ends. Precondition BOOTSTRAP_TOKEN_FILE when the file cannot be written or does not hold a token.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	s, err := open(ctx, p)
	if err != nil {
		return err
	}
	if cfg.BootstrapTokenFile == "" {
		cfg.BootstrapTokenFile = filepath.Join(p.DataDir, "admin.token")
	}
	if err := s.bootstrap(ctx, cfg); err != nil {
		return err
	}
	identityv1.RegisterIdentityServiceServer(p.Server, s)
	p.Every("request sweep", time.Hour, s.requests.Sweep)
	return p.Serve(ctx)
}

func open(ctx context.Context, p *service.Platform) (*server, error) {
	s := &server{clk: p.Clock, logger: p.Logger}
	var err error
	if s.tokens, err = outbox.Open[token](ctx, p.Outbox, docstore.Spec{
		Name: "tokens", Indexes: []docstore.Index{{Fields: []string{"hash"}, Unique: true}, {Fields: []string{"team"}}},
	}); err != nil {
		return nil, err
	}
	if s.audit, err = outbox.Open[auditEntry](ctx, p.Outbox, docstore.Spec{
		Name: "audit", Indexes: []docstore.Index{
			{Fields: []string{"at"}}, {Fields: []string{"team", "at"}}, {Fields: []string{"actor", "at"}}, {Fields: []string{"subject", "at"}}, {Fields: []string{"method", "at"}},
		},
	}); err != nil {
		return nil, err
	}
	s.requests, err = once.Open(ctx, p.Outbox)
	return s, err
}
