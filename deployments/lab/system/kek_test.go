package system_test

import (
	"context"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/seal/localkek"
)

// The platform is started without one of its key files and with another one in its place. It stops each time and says which key it wants and which it
// found, overwrites nothing, and works again with what it had.
func TestAMissingOrForeignKeyFileStopsTheStart(t *testing.T) {
	ctx := labtest.Deadline(t, 4*time.Minute)
	s, err := stage.Start(ctx, stage.Options{Dir: t.TempDir(), Without: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	data := filepath.Join(s.Dir, "platform")
	up := func() error {
		s.Platform, err = platform.Start(ctx, platform.Options{Dir: data, HTTP01Port: s.HTTP01Port, Change: func(cfg *certwright.Config) {
			hasty(cfg)
			cfg.Log.Level = "error"
			s.Configure(cfg, nil)
		}})
		return err
	}

	require.NoError(t, up())
	issuer, err := s.Issuer(ctx, "lab CA")
	require.NoError(t, err)
	_, err = s.DNSAccount(ctx, "lab DNS")
	require.NoError(t, err)
	require.NoError(t, s.Channels(ctx))
	made, err := s.Request(ctx, issuer.GetId(), "dns-01", nil, "www.shop.test")
	require.NoError(t, err)
	first, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	key := exported(ctx, t, s)
	require.NoError(t, s.Platform.Close())

	rows := []struct{ name, file string }{
		{"keys, which holds the certificates' keys", "keys/keys.kek"},
		{"orders, which holds the ACME accounts' keys", "orders/orders.kek"},
		{"dns, which holds the credentials of DNS accounts", "dns/dns.kek"},
		{"notifications, which holds passwords and webhook secrets", "notifications/notifications.kek"},
	}
	for _, r := range rows {
		path := filepath.Join(data, r.file)
		right, err := os.ReadFile(path)
		require.NoError(t, err)
		wanted := kekID(t, right)

		t.Run("without the file of "+r.name, func(t *testing.T) {
			require.NoError(t, os.Remove(path))
			err := up()
			require.Equal(t, "KEK_MISSING", errs.ReasonOf(err), "%v", err)
			require.ErrorContains(t, err, wanted)
			require.ErrorContains(t, err, path)
			require.Equal(t, wanted, errs.As(err).Meta["wanted"])
			require.NoFileExists(t, path, "no new key was made")
		})
		t.Run("with another file for "+r.name, func(t *testing.T) {
			elsewhere := filepath.Join(t.TempDir(), "other.kek")
			_, err := localkek.Create(elsewhere)
			require.NoError(t, err)
			foreign, err := os.ReadFile(elsewhere)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, foreign, 0o600))
			found := kekID(t, foreign)
			require.NotEqual(t, wanted, found)

			err = up()
			require.Equal(t, "KEK_FOREIGN", errs.ReasonOf(err), "%v", err)
			require.ErrorContains(t, err, wanted)
			require.ErrorContains(t, err, found)
			require.ErrorContains(t, err, path)
			now, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, foreign, now, "the file that was there is still there")
		})
		require.NoError(t, os.WriteFile(path, right, 0o600))
	}

	t.Run("with its own files it works as before", func(t *testing.T) {
		require.NoError(t, up())
		t.Cleanup(func() { require.NoError(t, s.Platform.Close()) })
		require.Equal(t, key, exported(ctx, t, s))
		// A renewal by dns-01 needs the account's key and the DNS credential; its mail needs nothing but the signed post needs the webhook's secret.
		before := len(s.Hook.Deliveries())
		planned(ctx, t, s, made.GetId(), first.GetCurrentVersion().GetFacts().GetVersionId())
		require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates/"+made.GetId()+":renew", nil, nil))
		_, err := s.Version(ctx, made.GetId(), first.GetCurrentVersion().GetFacts().GetVersionId())
		require.NoError(t, err)
		posts, err := s.Hook.Wait(ctx, before+1)
		require.NoError(t, err)
		require.NoError(t, posts[len(posts)-1].Verified)
	})
}

// exported is the one key's text.
func exported(ctx context.Context, t *testing.T, s *stage.Stage) string {
	t.Helper()
	all := &keysv1.ListKeysResponse{}
	require.NoError(t, stage.Until(ctx, s, "/v1/keys", all, func(all *keysv1.ListKeysResponse) bool {
		return len(all.GetKeys()) == 1 && all.GetKeys()[0].GetState() == "active"
	}))
	out := &keysv1.ExportKeyResponse{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/keys/"+all.GetKeys()[0].GetId()+":export", &keysv1.ExportKeyRequest{}, out))
	require.NotEmpty(t, out.GetPrivateKeyPem())
	return out.GetPrivateKeyPem()
}

// kekID reads the id from a key file.
func kekID(t *testing.T, file []byte) string {
	t.Helper()
	block, _ := pem.Decode(file)
	require.NotNil(t, block)
	require.NotEmpty(t, block.Headers["Id"])
	return block.Headers["Id"]
}
