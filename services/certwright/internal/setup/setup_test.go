package setup

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
)

var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func options(t *testing.T, change func(*Options)) Options {
	t.Helper()
	o := Options{Dir: filepath.Join(t.TempDir(), "made"), Form: FormContainers, Now: now, Owner: "0:0"}
	if os.Geteuid() != 0 {
		o.Owner = ""
	}
	if change != nil {
		change(&o)
	}
	return o
}

// content reads every file of the installation.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	}))
	return all
}

func TestEverythingIsMadeOnceAndForItsOwnerAlone(t *testing.T) {
	o := options(t, nil)
	first, err := Run(o)
	require.NoError(t, err)
	require.Empty(t, first.Kept)
	require.Empty(t, first.Warnings)
	require.Equal(t, now.Add(leafLife), first.Ends)
	before := content(t, o.Dir)
	for _, name := range names() {
		for _, file := range []string{"config.yaml", "tls.crt", "tls.key", "ca.pem", "nats.seed", "nats.pub", "principal.pub"} {
			require.Contains(t, before, name+"/"+file)
		}
	}
	require.Len(t, first.Made, len(before))
	require.Contains(t, before["mongodb/init.js"], `db.getSiblingDB("certwright_orders").createUser({user: "orders", pwd: "`+strings.TrimSpace(before["mongodb/orders.password"])+`"`)
	require.Contains(t, before[".env"], "COMPOSE_PROFILES=mongodb\n")
	require.Contains(t, before["orders/config.yaml"], strings.TrimSpace(before["mongodb/orders.password"]))
	for name, text := range before {
		require.Equal(t, strings.HasPrefix(name, "gateway/principal.key"), strings.HasSuffix(name, "principal.key"), name)
		require.NotContains(t, text, "<no value>", name)
	}
	require.NoError(t, filepath.WalkDir(o.Dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
		return nil
	}))

	second, err := Run(o)
	require.NoError(t, err)
	require.Empty(t, second.Made)
	require.Empty(t, second.Renewed)
	require.Empty(t, cmp.Diff(before, content(t, o.Dir)))
}

func TestTheServicesMayEnterWhatRootMadeForThem(t *testing.T) {
	if os.Geteuid() != 0 {
		testkit.Missing(t, "root is missing: only root makes files for other users; run the test as root")
	}
	o := Options{Dir: filepath.Join(t.TempDir(), "made"), Form: FormHosts, Now: time.Now(), Owner: "12345:12345"}
	_, err := Run(o)
	require.NoError(t, err)
	for path, mode := range map[string]fs.FileMode{".": 0o711, caDir: 0o700, "orders": 0o700} {
		fi, err := os.Stat(filepath.Join(o.Dir, path))
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode().Perm(), path)
	}
}

func TestARunLaterAddsWhatIsMissing(t *testing.T) {
	o := options(t, func(o *Options) { o.Services = []string{"orders"} })
	_, err := Run(o)
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(o.Dir, "dns", "config.yaml"))
	before := content(t, o.Dir)
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, "orders", "config.yaml"), []byte("mine: yes\n"), 0o600))

	o.Services = nil
	r, err := Run(o)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"nats/users.conf", "mongodb/init.js"}, r.Renewed)
	after := content(t, o.Dir)
	require.Equal(t, "mine: yes\n", after["orders/config.yaml"])
	require.Contains(t, after["nats/users.conf"], strings.TrimSpace(after["dns/nats.pub"]))
	for name := range before {
		if name != "orders/config.yaml" && name != "nats/users.conf" && name != "mongodb/init.js" {
			require.Equal(t, before[name], after[name], name)
		}
	}
}

func TestCertificatesAreForTheirServiceAndRenewedWhenAsked(t *testing.T) {
	o := options(t, func(o *Options) {
		o.Form = FormHosts
		o.Hosts = map[string]string{"orders": "10.0.0.5", "keys": "keys.internal:99"}
	})
	_, err := Run(o)
	require.NoError(t, err)
	before := content(t, o.Dir)
	cert := certificate(t, before["orders/tls.crt"])
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(before["ca/ca.pem"])))
	for _, host := range []string{rpc.ServerName("orders"), "orders", "localhost", "127.0.0.1", "10.0.0.5"} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		require.NoError(t, err, host)
	}
	require.Error(t, cert.VerifyHostname(rpc.ServerName("keys")))
	require.NoError(t, certificate(t, before["keys/tls.crt"]).VerifyHostname("keys.internal"))
	require.Contains(t, before["gateway/config.yaml"], `orders: "10.0.0.5:7445"`)
	require.Contains(t, before["orders/config.yaml"], `listen: ":7445"`)
	require.Contains(t, before["gateway/config.yaml"], `keys: "keys.internal:99"`)
	require.Contains(t, before["dns/config.yaml"], `listen: "127.0.0.1:7447"`)
	require.NotContains(t, before, ".env")

	o.Now = now.Add(leafLife - leafLife/3 + time.Hour)
	r, err := Run(o)
	require.NoError(t, err)
	require.Len(t, r.Warnings, len(names())+1)
	require.Contains(t, r.Warnings[0], "--renew")
	o.Renew = true
	r, err = Run(o)
	require.NoError(t, err)
	require.Empty(t, r.Warnings)
	require.Len(t, r.Renewed, len(names())+1)
	after := content(t, o.Dir)
	require.Equal(t, before["orders/tls.key"], after["orders/tls.key"])
	require.Equal(t, o.Now.Add(leafLife), certificate(t, after["orders/tls.crt"]).NotAfter)
}

func certificate(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	require.NotNil(t, block)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

func TestMaterialThatDoesNotFitTogetherIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(t *testing.T, dir string)
		says string
	}{
		{"the CA's key is kept elsewhere and a certificate is missing", func(t *testing.T, dir string) {
			remove(t, dir, "ca/ca.key", "dns/tls.crt")
		}, "INIT_CA_KEY_MISSING"},
		{"the CA is gone", func(t *testing.T, dir string) { remove(t, dir, "ca/ca.key", "ca/ca.pem") }, "INIT_KEY_MISMATCH"},
		{"the CA's key is another", func(t *testing.T, dir string) {
			text, err := os.ReadFile(filepath.Join(dir, "dns", "tls.key"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "ca", "ca.key"), text, 0o600))
		}, "INIT_KEY_MISMATCH"},
		{"the key of principals is gone", func(t *testing.T, dir string) { remove(t, dir, "gateway/principal.key") }, "INIT_KEY_MISMATCH"},
		{"a seed is gone", func(t *testing.T, dir string) { remove(t, dir, "orders/nats.seed") }, "INIT_KEY_MISMATCH"},
		{"a certificate is cut off", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "orders", "tls.crt"), []byte("x"), 0o600))
		}, "INIT_FILES_UNUSABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, nil)
			_, err := Run(o)
			require.NoError(t, err)
			c.harm(t, o.Dir)
			_, err = Run(o)
			require.Equal(t, c.says, errs.ReasonOf(err), "%v", err)
		})
	}
}

func remove(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		require.NoError(t, os.Remove(filepath.Join(dir, f)))
	}
}

func TestTheCAsKeyMayBeKeptElsewhere(t *testing.T) {
	o := options(t, nil)
	_, err := Run(o)
	require.NoError(t, err)
	remove(t, o.Dir, "ca/ca.key")
	r, err := Run(o)
	require.NoError(t, err)
	require.Empty(t, r.Made)
}

func TestMistakesAreNamedTogether(t *testing.T) {
	_, err := Run(Options{Form: "vm", Services: []string{"ordres"}, Hosts: map[string]string{"fleet": "x", "orders": ""}, Owner: "root"})
	e := errs.As(err)
	require.NotNil(t, e)
	require.Len(t, e.Fields, 6)
}

func TestAnExistingMongoDBOrSQLiteIsUsed(t *testing.T) {
	o := options(t, func(o *Options) { o.MongoURI = secret.New("mongodb://db.internal/") })
	_, err := Run(o)
	require.NoError(t, err)
	all := content(t, o.Dir)
	require.Contains(t, all["orders/config.yaml"], `mongodb_uri: "mongodb://db.internal/"`)
	require.NotContains(t, all, "mongodb/init.js")

	o = options(t, func(o *Options) { o.SQLite = true })
	_, err = Run(o)
	require.NoError(t, err)
	all = content(t, o.Dir)
	require.NotContains(t, all["orders/config.yaml"], "mongodb")
	require.Contains(t, all[".env"], "COMPOSE_PROFILES=\n")
}

func TestTheNATSServerTakesItsConfiguration(t *testing.T) {
	o := options(t, func(o *Options) { o.Form, o.DataDir = FormHosts, t.TempDir() })
	_, err := Run(o)
	require.NoError(t, err)
	got, err := server.ProcessConfigFile(filepath.Join(o.Dir, "nats", "nats.conf"))
	require.NoError(t, err)
	require.Len(t, got.Nkeys, len(names()))
	require.NotNil(t, got.TLSConfig)
	require.Equal(t, "127.0.0.1", got.Host)
	for _, u := range got.Nkeys {
		require.NotEmpty(t, u.Permissions.Publish.Allow)
		require.NotContains(t, u.Permissions.Publish.Allow, ">")
	}
}

func TestTheCommandSaysWhatItMadeAndWhatIsNext(t *testing.T) {
	o := options(t, nil)
	run := func(args ...string) (string, error) {
		c := Command()
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(args)
		err := c.Execute()
		return out.String(), err
	}
	args := []string{"--dir", o.Dir, "--sqlite"}
	if o.Owner != "" {
		args = append(args, "--owner", o.Owner)
	}
	text, err := run(args...)
	require.NoError(t, err)
	for _, s := range []string{"made     orders/: tls.key tls.crt", "docker compose --env-file " + o.Dir + "/.env up", "ca/ca.key offline"} {
		require.Contains(t, text, s)
	}
	text, err = run(args...)
	require.NoError(t, err)
	require.Contains(t, text, "Nothing was missing.")
	_, err = run("--dir", o.Dir, "--mongodb-uri-file", filepath.Join(o.Dir, "none"))
	require.Equal(t, "INIT_INVALID", errs.ReasonOf(err))
	_, err = run()
	require.Error(t, err)
}
