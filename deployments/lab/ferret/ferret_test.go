package ferret_test

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/many"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/secret"
)

// serve runs an embedded FerretDB and returns its URI. Each service has one connection to it: with more, its updates are not atomic.
func serve(t *testing.T) string {
	t.Helper()
	server, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{TCP: "127.0.0.1:0"}, Handler: "sqlite", SQLiteURL: "file:" + t.TempDir() + "/", Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	uri, err := url.Parse(server.MongoDBURI())
	require.NoError(t, err)
	uri.RawQuery, uri.Path = "maxPoolSize=1", "/"
	return uri.String()
}

func TestACertificatesLifeOverMongoDBsWire(t *testing.T) {
	uri := serve(t)
	dir := t.TempDir()
	ctl := labtest.Sitectl(t)
	s := start(t, stage.Options{
		Dir: dir, ReloadCommand: func(control string) []string { return []string{ctl, "reload", control} },
		Change: func(cfg *certwright.Config) { cfg.MongoURI = secret.New(uri) },
	})
	journey(t, s)
	noFiles(t, filepath.Join(dir, "platform"))
	t.Log("PROVEN: every service speaks MongoDB's wire in a dialect that FerretDB v1.24.2 understands; issue, deploy, renew, revoke")
	t.Log("NOT PROVEN: MongoDB itself, concurrent writers, use of indexes, durability, replica sets (set MONGODB_URI and run the tests of shared/docstore/mongo and of deployments/lab/many)")
}

// The same with every service as a process of its own, which gets the URI from what "certwright init" writes.
func TestManyProcessesOverMongoDBsWire(t *testing.T) {
	bin := os.Getenv("MANY_BIN")
	if bin == "" {
		if os.Getenv("REQUIRE_ALL") == "1" {
			t.Fatal("MANY_BIN does not name a directory with the programs (make dist)")
		}
		t.Skip("MANY_BIN does not name a directory with the programs (make dist)")
	}
	uri := serve(t)
	dir := t.TempDir()
	s := start(t, stage.Options{Dir: dir, Without: true})
	form, err := many.Start(labtest.Deadline(t, 2*time.Minute), many.Options{
		Bin: bin, Dir: filepath.Join(dir, "platform"), HTTP01Port: s.HTTP01Port, Roots: []string{dir}, MongoURI: uri,
		Commands: map[string][]string{"reload-site": {labtest.Sitectl(t), "reload", s.Site.ControlAddr()}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, form.Close()) })
	s.Platform = &platform.Platform{Client: form.Client}
	journey(t, s)
	noFiles(t, form.Data)
}

func start(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	o.CA = ca.Options{Strict: true, NonceReject: 20}
	s, err := stage.Start(labtest.Deadline(t, 2*time.Minute), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func journey(t *testing.T, s *stage.Stage) {
	t.Helper()
	ctx := labtest.Deadline(t, 2*time.Minute)
	target, err := s.Target(ctx, "web server")
	require.NoError(t, err)
	h, err := hammer.Start(ctx, hammer.Options{Addr: s.Site.Addr(), ServerName: "www." + stage.Zone, Roots: s.CA.Roots(), Workers: 1})
	require.NoError(t, err)
	t.Cleanup(func() { h.Stop() })
	require.NoError(t, many.Journey(ctx, s, "lab CA", target.GetId(), h.WaitServed, t.Logf))
}

// noFiles checks that the services stored elsewhere than in SQLite files, and did store.
func noFiles(t *testing.T, data string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(data, "*", "*.db"))
	require.NoError(t, err)
	require.Empty(t, files)
	require.FileExists(t, filepath.Join(data, "orders", "orders.kek"))
}
