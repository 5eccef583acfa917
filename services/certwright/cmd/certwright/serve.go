package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/services/certwright/internal/cli"
	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/service"
)

// serve runs the platform with the configuration of the defaults, the file, the environment and the flags.
func serve(ctx context.Context, s cli.Serving) error {
	cfg := certwright.Defaults()
	cfg.Version = service.Version()
	env := os.Environ()
	if uri := os.Getenv("MONGODB_URI"); uri != "" && os.Getenv("CERTWRIGHT_MONGODB_URI") == "" {
		env = append(env, "CERTWRIGHT_MONGODB_URI="+uri)
	}
	if err := config.Load(&cfg, config.Source{File: s.File, Env: env, IgnoreEnv: cli.Env(), Flags: s.Flags}); err != nil {
		return err
	}
	cfg.Started = func(up certwright.Running) {
		started := cli.Started{URL: up.Edge, TokenFile: up.AdminTokenFile}
		if len(up.EdgeRoots) > 0 {
			started.CAFile = filepath.Join(cfg.DataDir, "gateway", "edge-ca.pem")
		}
		s.Started(started)
	}
	return certwright.Serve(ctx, cfg)
}
