package gateway

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/gateway/internal/edgecert"
	"github.com/certwright/certwright/shared/depstest"
	"github.com/certwright/certwright/shared/errs"
)

func TestAddresses(t *testing.T) {
	for _, row := range []struct {
		name  string
		cfg   Config
		url   string
		wrong string // field, "" for none
	}{
		{"the default", Defaults(), "https://127.0.0.1:8443", ""},
		{"a host of one's own", Config{HTTPS: "192.0.2.1:443"}, "https://192.0.2.1:443", ""},
		{"all addresses", Config{HTTPS: "[::]:443"}, "https://127.0.0.1:443", ""},
		{"plain on loopback alone", Config{HTTP: "127.0.0.1:8080"}, "http://127.0.0.1:8080", ""},
		{"both", Config{HTTPS: ":8443", HTTP: "localhost:8080"}, "https://127.0.0.1:8443", ""},
		{"plain on all addresses is refused", Config{HTTPS: ":8443", HTTP: ":8080"}, "", "http"},
		{"plain on a network is refused", Config{HTTPS: ":8443", HTTP: "192.0.2.1:8080"}, "", "http"},
		{"plain under a name is refused", Config{HTTPS: ":8443", HTTP: "example.test:8080"}, "", "http"},
		{"nothing is refused", Config{}, "", "https"},
		{"a port alone is refused", Config{HTTPS: "8443"}, "", "https"},
		{"port 0 is refused", Config{HTTPS: ":0"}, "", "https"},
		{"a certificate without key is refused", Config{HTTPS: ":8443", CertFile: "a"}, "", "cert_file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.cfg.Validate()
			if row.wrong != "" {
				require.Equal(t, "CONFIG_INVALID", errs.ReasonOf(err))
				require.Equal(t, row.wrong, errs.As(err).Fields[0].Name)
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.url, row.cfg.URL())
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.Equal(t, "https://"+l.Addr().String(), Config{Listener: l}.URL())
}

func TestRootsAreTheLocalCAs(t *testing.T) {
	dir := t.TempDir()
	require.Empty(t, Defaults().Roots(dir), "before the first start")
	require.NoError(t, os.WriteFile(filepath.Join(dir, edgecert.RootFile), []byte("pem"), 0o600))
	require.Equal(t, "pem", string(Defaults().Roots(dir)))
	require.Empty(t, Config{CertFile: "a", KeyFile: "b"}.Roots(dir), "somebody else's CA")
}

func TestPathsOfJSONMembers(t *testing.T) {
	const body = `{"a": 1, "b": {"c": [true, {"d": "x"}, [null]], "é": 2}, "e": {}}`
	for _, row := range []struct {
		name   string
		column int
		want   string
	}{
		{"a key at the top", 2, "a"},
		{"its value", 7, "a"},
		{"an object", 15, "b"},
		{"a key in it", 16, "b.c"},
		{"an element", 22, "b.c[0]"},
		{"a key in an element", 29, "b.c[1].d"},
		{"an element of an element", 41, "b.c[2][0]"},
		{"after a character of two bytes", 54, "b.é"},
		{"the last", 58, "e"},
		{"far behind", 900, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, pathAt([]byte(body), offsetOf([]byte(body), 1, row.column)))
		})
	}
}

func TestServicesMeetOnlyInTheAPI(t *testing.T) {
	const services = "github.com/certwright/certwright/services/"
	depstest.Check(t, map[string][]string{"./...": {
		services + "inventory", services + "keys", services + "orders", services + "challenges", services + "dns", services + "renewals",
		services + "deployer", services + "notifications", services + "identity", services + "certwright",
	}}, "services meet only in api")
}
