package ferrettest

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/FerretDB/FerretDB/ferretdb"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/docstoretest"
	"github.com/certwright/certwright/shared/docstore/mongo"
)

// serve runs an embedded FerretDB and returns its URI.
func serve(t *testing.T) string {
	t.Helper()
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Handler:   "sqlite",
		SQLiteURL: "file:" + filepath.Join(t.TempDir()) + "/",
		Logger:    slog.New(slog.DiscardHandler),
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
	uri.RawQuery = "maxPoolSize=1" // more connections and its updates are not atomic
	if uri.Path == "" {
		uri.Path = "/"
	}
	return uri.String()
}

func TestConformanceOverTheWire(t *testing.T) {
	uri := serve(t)
	t.Log("PROVEN: the dialect and the wire protocol, against FerretDB v1.24.2 on SQLite; NOT PROVEN: concurrency, use of indexes, durability" +
		" (set MONGODB_URI and run the tests of package mongo)")
	var n atomic.Int32
	open := func(t *testing.T, database string) *mongo.Store {
		t.Helper()
		s, err := mongo.Open(context.Background(), mongo.Options{URI: uri, Database: database})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	names := map[docstore.Store]string{}
	docstoretest.Run(t, func(t *testing.T) docstore.Store {
		t.Helper()
		name := strings.ToLower(fmt.Sprintf("suite_%d", n.Add(1)))
		s := open(t, name)
		names[s] = name
		return s
	}, docstoretest.Capabilities{Reopen: func(t *testing.T, s docstore.Store) docstore.Store {
		t.Helper()
		require.NoError(t, s.Close())
		return open(t, names[s])
	}})
}
