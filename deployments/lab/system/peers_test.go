package system_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/deployments/lab/bind"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/nginx"
	"github.com/certwright/certwright/deployments/lab/smtp"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/deployments/lab/webhook"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/services/deployer"
	"github.com/certwright/certwright/shared/testkit"
)

// account creates a DNS account for a zone on a server.
func account(ctx context.Context, t *testing.T, s *stage.Stage, zone, server string, key dnsserver.Key) string {
	t.Helper()
	out := &dnsv1.DNSAccount{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/dnsAccounts", &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{
		DisplayName: "account of " + zone, Provider: "rfc2136", Zones: []string{zone},
		Rfc2136: &dnsv1.RFC2136{Server: server, TsigKeyName: key.Name, TsigSecret: key.Secret, TtlSeconds: 60},
	}}, out))
	return out.GetId()
}

// BIND 9 with a zone that takes TXT records by signed update: a wildcard and its base in one order are two values at one name.
func TestDNS01ByBIND(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "named", "bind9")
	const zone = "bind.test"
	named := labtest.Bind(t, bind.Options{Zones: []string{zone}})
	authority := labtest.CA(t, ca.Options{Strict: true, DNSServer: named.Addr()})
	s, _ := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 90*time.Second)
	issuer := &ordersv1.Issuer{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers", &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{
		DisplayName: "CA that asks BIND", Kind: "acme", Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: authority.DirectoryURL(), TrustRootsPem: string(authority.TLSRootPEM()), IssuedRootsPem: string(authority.RootsPEM()), TermsAgreed: true,
		},
	}}, issuer))
	account(ctx, t, s, zone, named.Addr(), named.Key)
	names := []string{"*." + zone, zone, "www.deep." + zone, "*.deep." + zone}
	made, err := s.Request(ctx, issuer.GetId(), "dns-01", nil, names...)
	require.NoError(t, err)
	got, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	require.ElementsMatch(t, names, got.GetCurrentVersion().GetFacts().GetNames())
	rested(ctx, t, s, made.GetId())
	for _, name := range []string{zone, "deep." + zone, "www.deep." + zone} {
		values, err := named.TXT(ctx, "_acme-challenge."+name)
		require.NoError(t, err)
		require.Empty(t, values, "values are left at _acme-challenge.%s", name)
	}
	written := map[string]bool{}
	for _, line := range regexp.MustCompile(`adding an RR at '_acme-challenge\.bind\.test' TXT "([^"]+)"`).FindAllStringSubmatch(named.Log(), -1) {
		written[line[1]] = true
	}
	require.Len(t, written, 2, "two values at one name")
}

// Debian's nginx is reloaded by its own command while clients hammer it: each version is served, and no handshake fails.
func TestNginxIsRenewedUnderLoad(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "nginx", "nginx")
	name := "www." + stage.Zone
	server := labtest.Nginx(t, nginx.Options{Names: []string{name}})
	s, issuer := start(t, stage.Options{Change: func(cfg *certwright.Config) {
		hasty(cfg)
		cfg.Deployer.VerifyPoll = 100 * time.Millisecond
		cfg.Deployer.Hosts["nginx"] = deployer.Host{
			AllowedRoots: []string{filepath.Dir(server.CertFile)}, Commands: map[string][]string{"reload-nginx": server.ReloadCommand()},
		}
	}})
	ctx := labtest.Deadline(t, 90*time.Second)
	target := &deployerv1.Target{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/targets", &deployerv1.CreateTargetRequest{Target: &deployerv1.Target{
		DisplayName: "nginx", Kind: "file", ProbeAddress: server.Addr(), ProbeServerName: name,
		File: &deployerv1.FileTarget{Host: "nginx", FullchainPath: server.CertFile, KeyPath: server.KeyFile, Reload: "reload-nginx"},
	}}, target))
	load := labtest.Hammer(t, hammer.Options{Addr: server.Addr(), ServerName: name, Path: "/"})
	require.NoError(t, load.Wait(ctx, func(r hammer.Report) bool { return r.Handshakes > 0 }))
	made, err := s.Request(ctx, issuer.GetId(), "http-01", []string{target.GetId()}, name)
	require.NoError(t, err)
	version := ""
	for range 3 {
		got, err := s.Version(ctx, made.GetId(), version)
		require.NoError(t, err)
		version = got.GetCurrentVersion().GetFacts().GetVersionId()
		require.NoError(t, load.WaitServed(ctx, got.GetCurrentVersion().GetFacts().GetFingerprintSha256()), server.Log())
		served(ctx, t, s, made.GetId(), 1)
		renew(ctx, t, s, made.GetId())
	}
	_, err = s.Version(ctx, made.GetId(), version)
	require.NoError(t, err)
	served(ctx, t, s, made.GetId(), 1)
	report := load.Stop()
	require.NoError(t, report.Err())
	require.GreaterOrEqual(t, len(report.Served), 4, "the throw-away certificate and at least three versions: %v", report.Fingerprints())
	deployments := &deployerv1.ListDeploymentsResponse{}
	require.Empty(t, list(ctx, s, "/v1/deployments", "certificate="+made.GetId(), deployments))
	require.Len(t, deployments.GetDeployments(), 4)
	for _, d := range deployments.GetDeployments() {
		require.Equal(t, "succeeded", d.GetState(), "%v", d.GetProblem())
		require.True(t, slices.ContainsFunc(d.GetSteps(), func(step *deployerv1.DeploymentStep) bool { return step.GetStep() == "verifying" && step.GetOk() }), "%v", d.GetSteps())
	}
}

// A mail server that wants TLS and a password, and a webhook receiver that checks signatures by the specification's text.
func TestMailAndWebhook(t *testing.T) {
	t.Parallel()
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, time.Minute)
	mailbox := labtest.SMTP(t, smtp.Options{Username: "certwright", Password: "correct horse", RequireTLS: true})
	channel := func(password string) *notificationsv1.TestChannelResponse {
		made := &notificationsv1.Channel{}
		require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/channels", &notificationsv1.CreateChannelRequest{Channel: &notificationsv1.Channel{
			DisplayName: "mail with " + password, Kind: "smtp", Events: []string{"certificate.issued"}, Smtp: &notificationsv1.SMTP{
				Server: mailbox.Addr(), Security: "starttls", Username: "certwright", Password: password, From: "certwright@shop.test", To: []string{"ops@shop.test"},
				ToOwner: true, TrustRootsPem: string(mailbox.RootPEM()),
			},
		}}, made))
		out := &notificationsv1.TestChannelResponse{}
		require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/channels/"+made.GetId()+":test", &notificationsv1.TestChannelRequest{}, out))
		if !out.GetOk() {
			require.NoError(t, s.Call(ctx, http.MethodDelete, "/v1/channels/"+made.GetId(), nil, nil))
		}
		return out
	}
	refused := channel("wrong horse")
	require.False(t, refused.GetOk())
	require.NotEmpty(t, refused.GetProblem().GetReason())
	require.Contains(t, refused.GetProblem().GetDetail(), mailbox.Addr())
	require.NotContains(t, refused.GetProblem().GetDetail(), "wrong horse")
	good := channel("correct horse")
	require.True(t, good.GetOk(), "%v", good.GetProblem())
	require.NoError(t, s.Channels(ctx)) // the webhook, with the secret that the platform made
	before := len(mailbox.Messages())

	made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, "www."+stage.Zone)
	require.NoError(t, err)
	mails, err := mailbox.Wait(ctx, before+2)
	require.NoError(t, err)
	var to []string
	for _, m := range mails[before:] {
		require.True(t, m.TLS)
		require.Equal(t, "certwright", m.User)
		to = append(to, m.To...)
		parsed, err := m.Parse()
		require.NoError(t, err)
		require.Contains(t, parsed.Header.Get("Subject"), "www.shop.test issued")
	}
	require.ElementsMatch(t, []string{"ops@shop.test", "shop@shop.test"}, to, "the team's address and the owner's, once each")

	var post *webhook.Delivery
	until(ctx, t, func() string {
		for _, d := range s.Hook.Deliveries() {
			if strings.Contains(string(d.Body), `"certificate.issued"`) && strings.Contains(string(d.Body), made.GetId()) {
				post = &d
				return ""
			}
		}
		return "certificate.issued was not posted"
	})
	require.NoError(t, post.Verified)
	require.Error(t, webhook.Verify([]string{"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, post.Header, post.Body, time.Now()), "another secret")
}

// A name server refuses the key: the order says which server and which key, and goes on when it is mended.
func TestANameServerThatRefusesTheKey(t *testing.T) {
	t.Parallel()
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 90*time.Second)
	wrong, err := dnsserver.NewKey(s.Key.Name)
	require.NoError(t, err)
	stranger, err := dnsserver.NewKey("stranger-key.")
	require.NoError(t, err)
	for i, r := range []struct {
		name string
		key  dnsserver.Key
		says string
	}{
		{"a secret that is not the server's", wrong, "BADSIG"},
		{"a key that the server does not know", stranger, "BADKEY"},
	} {
		t.Run(r.name, func(t *testing.T) {
			bad := account(ctx, t, s, stage.Zone, s.DNS.Addr(), r.key)
			name := fmt.Sprintf("tsig%d.%s", i, stage.Zone)
			made, err := s.Request(ctx, issuer.GetId(), "dns-01", nil, name)
			require.NoError(t, err)
			order := &ordersv1.Order{}
			require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+made.GetIntent().GetOrderId(), order, func(o *ordersv1.Order) bool {
				return o.GetBlocked().GetReason() == "DNS_TSIG_REFUSED"
			}))
			require.Equal(t, "authorizing", order.GetState())
			for _, says := range []string{s.DNS.Addr(), strings.TrimSuffix(r.key.Name, "."), r.says} {
				require.Contains(t, order.GetBlocked().GetDetail(), says)
			}
			require.NotContains(t, order.GetBlocked().GetDetail(), r.key.Secret)
			require.True(t, order.GetBlocked().GetRetrying())

			var good string
			mend := []func(){
				func() { good = account(ctx, t, s, stage.Zone, s.DNS.Addr(), s.Key) },
				func() {
					require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/dnsAccounts/"+bad+":disable", &dnsv1.DisableDNSAccountRequest{}, nil))
				},
			}
			mend[i]()
			mend[1-i]()
			_, err = s.Version(ctx, made.GetId(), "")
			require.NoError(t, err)
			rested(ctx, t, s, made.GetId())
			clean(ctx, t, s)
			require.NoError(t, s.Call(ctx, http.MethodDelete, "/v1/dnsAccounts/"+good, nil, nil))
		})
	}
}

// mount mounts on dir until the test ends. It needs the capability SYS_ADMIN (see testkit.Missing).
func mount(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "mount", append(args, dir)...).CombinedOutput() //nolint:gosec // the test's own words
	if err != nil {
		testkit.Missing(t, "the capability SYS_ADMIN is missing: root writes everywhere but on a read-only file system, which cannot be mounted here (%s); run the test as another user, or where root may mount", bytes.TrimSpace(out))
	}
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() }) //nolint:gosec,noctx // the test's context has ended
}

// What a user sees when a deployment cannot work, and that it works once the host is mended.
func TestWhatAUserSeesWhenADeploymentFails(t *testing.T) {
	t.Parallel()
	var root string
	script := func() string { return filepath.Join(root, "reload.sh") }
	s, issuer := start(t, stage.Options{Change: func(cfg *certwright.Config) {
		hasty(cfg)
		host := cfg.Deployer.Hosts["local"]
		root = host.AllowedRoots[0]
		host.Commands["script"] = []string{"/bin/sh", script()}
		host.CommandTimeout = time.Second
		cfg.Deployer.Hosts["local"] = host
	}})
	ctx := labtest.Deadline(t, 90*time.Second)
	create := func(file *deployerv1.FileTarget) (*deployerv1.Target, error) {
		out := &deployerv1.Target{}
		file.Host = "local"
		return out, s.Call(ctx, http.MethodPost, "/v1/targets", &deployerv1.CreateTargetRequest{
			Target: &deployerv1.Target{DisplayName: file.GetFullchainPath(), Kind: "file", File: file},
		}, out)
	}
	t.Run("a path outside the allowed roots", func(t *testing.T) {
		for path, says := range map[string][]string{
			"/etc/ssl/fullchain.pem":                           {"DEPLOY_PATH_NOT_ALLOWED", root},
			root + "/../fullchain.pem":                         {"DEPLOY_PATH_NOT_ALLOWED", root},
			filepath.Join(filepath.Dir(root), "fullchain.pem"): {"DEPLOY_PATH_NOT_ALLOWED", root},
			"fullchain.pem":                                    {"give an absolute path"},
		} {
			_, err := create(&deployerv1.FileTarget{FullchainPath: path, KeyPath: filepath.Join(root, "key.pem")})
			var refused *client.Error
			require.True(t, errors.As(err, &refused), "%v", err)
			require.Equal(t, http.StatusBadRequest, refused.Status, refused.Body)
			for _, says := range append(says, "target.file.fullchainPath") {
				require.Contains(t, refused.Body, says)
			}
		}
	})
	t.Run("a command that the host does not have", func(t *testing.T) {
		_, err := create(&deployerv1.FileTarget{FullchainPath: filepath.Join(root, "fullchain.pem"), Reload: "rm -rf /"})
		var refused *client.Error
		require.True(t, errors.As(err, &refused), "%v", err)
		require.Equal(t, http.StatusBadRequest, refused.Status, refused.Body)
		for _, says := range []string{"DEPLOY_COMMAND_UNKNOWN", "target.file.reload", "script"} {
			require.Contains(t, refused.Body, says)
		}
	})
	rows := []struct {
		name, dir   string
		spoil, mend func(t *testing.T, dir string)
		reload      string
		state       []string
		reason      string
		says        []string
	}{
		{
			name: "a directory that is not there", dir: "missing",
			spoil: func(*testing.T, string) {}, mend: func(t *testing.T, dir string) { require.NoError(t, os.Mkdir(dir, 0o700)) },
			state: []string{"failed"}, reason: "DEPLOY_DIR_NOT_WRITABLE", says: []string{"missing", "does not exist"},
		},
		{
			name: "a file where the directory should be", dir: "file",
			spoil: func(t *testing.T, dir string) { require.NoError(t, os.WriteFile(dir, nil, 0o600)) },
			mend: func(t *testing.T, dir string) {
				require.NoError(t, os.Remove(dir))
				require.NoError(t, os.Mkdir(dir, 0o700))
			},
			state: []string{"failed"}, reason: "DEPLOY_DIR_NOT_WRITABLE", says: []string{"file", "is no directory"},
		},
		{
			name: "a directory without the right to write", dir: "readonly",
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.Mkdir(dir, 0o500)) //nolint:gosec // on purpose
				if os.Getuid() == 0 {
					mount(t, dir, "-t", "tmpfs", "-o", "ro", "tmpfs") // modes do not stop root
				}
			},
			mend: func(t *testing.T, dir string) {
				if os.Getuid() == 0 {
					mount(t, dir, "-o", "remount,rw")
				}
				require.NoError(t, os.Chmod(dir, 0o700)) //nolint:gosec // a directory
			},
			state: []string{"failed"}, reason: "DEPLOY_DIR_NOT_WRITABLE", says: []string{"readonly", "cannot be written"},
		},
		{
			name: "a reload command that fails", dir: "fails", reload: "script",
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.Mkdir(dir, 0o700))
				require.NoError(t, os.WriteFile(script(), []byte("echo unit web.service not found >&2; exit 3\n"), 0o600))
			},
			mend:  func(t *testing.T, _ string) { require.NoError(t, os.WriteFile(script(), []byte("exit 0\n"), 0o600)) },
			state: []string{"rolled_back", "stuck", "failed"}, reason: "DEPLOY_RELOAD_FAILED", says: []string{"script", "exit code 3", "unit web.service not found"},
		},
		{
			name: "a reload command that hangs", dir: "hangs", reload: "script",
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.Mkdir(dir, 0o700))
				require.NoError(t, os.WriteFile(script(), []byte("echo waiting for a lock; sleep 60 & wait\n"), 0o600))
			},
			mend:  func(t *testing.T, _ string) { require.NoError(t, os.WriteFile(script(), []byte("exit 0\n"), 0o600)) },
			state: []string{"rolled_back", "stuck", "failed"}, reason: "DEPLOY_RELOAD_TIMEOUT", says: []string{"script", "killed after 1s", "waiting for a lock"},
		},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := filepath.Join(root, r.dir)
			r.spoil(t, dir)
			target, err := create(&deployerv1.FileTarget{FullchainPath: filepath.Join(dir, "fullchain.pem"), KeyPath: filepath.Join(dir, "key.pem"), Reload: r.reload})
			require.NoError(t, err)
			made, err := s.Request(ctx, issuer.GetId(), "http-01", []string{target.GetId()}, r.dir+"."+stage.Zone)
			require.NoError(t, err)
			var seen *deployerv1.Deployment
			until(ctx, t, func() string {
				all := &deployerv1.ListDeploymentsResponse{}
				if wrong := list(ctx, s, "/v1/deployments", "certificate="+made.GetId(), all); wrong != "" {
					return wrong
				}
				for _, d := range all.GetDeployments() {
					if slices.Contains(r.state, d.GetState()) {
						seen = d
						return ""
					}
				}
				return fmt.Sprintf("deployments: %v", all.GetDeployments())
			})
			require.Equal(t, r.reason, seen.GetProblem().GetReason(), "%v", seen)
			for _, says := range r.says {
				require.Contains(t, seen.GetProblem().GetDetail(), says)
			}
			require.NotNil(t, seen.GetRetryAt(), "it is tried again by itself")
			got := &inventoryv1.Certificate{}
			require.NoError(t, stage.Until(ctx, s, "/v1/certificates/"+made.GetId(), got, func(c *inventoryv1.Certificate) bool { return len(c.GetFindings()) > 0 }))

			r.mend(t, dir)
			require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/deployments/"+seen.GetId()+":retry", &deployerv1.RetryDeploymentRequest{}, nil))
			served(ctx, t, s, made.GetId(), 1)
			require.NoError(t, stage.Until(ctx, s, "/v1/certificates/"+made.GetId(), got, func(c *inventoryv1.Certificate) bool { return len(c.GetFindings()) == 0 }))
			installed, err := os.ReadFile(filepath.Join(dir, "fullchain.pem"))
			require.NoError(t, err)
			require.Contains(t, string(installed), "BEGIN CERTIFICATE")
		})
	}
}
