package rfc2136_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/rfc2136"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
)

const name = "_acme-challenge.www.example.org"

const wrongSecret = "d3JvbmcgZm9yIHRoZSBrZXksIHRoYXQgaXMgMzIgYnl0"

type access struct{ server, key, secret, algorithm string }

func open(t *testing.T, a access) app.Provider {
	t.Helper()
	kind := rfc2136.Kind{Clock: clock.System()}
	settings, credential, wrong := kind.Check(domain.Account{Settings: map[string]string{
		rfc2136.SettingServer: a.server, rfc2136.SettingKeyName: a.key, rfc2136.SettingAlgorithm: a.algorithm,
	}}, app.Secrets{rfc2136.SecretTSIG: secret.New(a.secret)})
	require.Empty(t, wrong)
	p, err := kind.Open(settings, credential)
	require.NoError(t, err)
	return p
}

func apply(ctx context.Context, p app.Provider, zone, fqdn string, want, drop []string) error {
	change, err := p.Apply(ctx, zone, fqdn, want, drop, time.Minute)
	if change != "" {
		return errs.New(errs.Internal, "", "an update is there at once")
	}
	return err
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func good(server string) access {
	return access{server: server, key: dnstest.KeyName, secret: dnstest.Secret}
}

func TestOneUpdateBringsTheUnionAndLeavesWhatIsOthers(t *testing.T) {
	s := dnstest.Start(t, "example.org")
	s.Set(name, "somebody else's", "old")
	p := open(t, good(s.Addr))
	ctx := within(t, testkit.Deadline)
	long := strings.Repeat("x", 300)

	require.NoError(t, apply(ctx, p, "example.org", name, []string{"one", "two", long}, []string{"old"}))
	require.Equal(t, []string{"one", "somebody else's", "two", long}, s.Values(name))
	require.Equal(t, 1, s.Updates())
	read, err := p.Read(ctx, "example.org", name)
	require.NoError(t, err)
	slices.Sort(read)
	require.Equal(t, s.Values(name), read)

	require.NoError(t, apply(ctx, p, "example.org", name, nil, []string{"one", "two", long}))
	require.Equal(t, []string{"somebody else's"}, s.Values(name))
	read, err = p.Read(ctx, "example.org", "_acme-challenge.nothing.example.org")
	require.NoError(t, err)
	require.Empty(t, read)
}

func TestARefusalNamesServerKeyAndWhatToMend(t *testing.T) {
	s := dnstest.Start(t, "example.org")
	s.Alias("_acme-challenge.alias.example.org", "elsewhere.test")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	closed := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	with := func(change func(*access)) access {
		a := good(s.Addr)
		change(&a)
		return a
	}
	write := func(zone, fqdn string) func(context.Context, app.Provider) error {
		return func(ctx context.Context, p app.Provider) error {
			return apply(ctx, p, zone, fqdn, []string{"v"}, nil)
		}
	}
	table := []struct {
		name   string
		access access
		do     func(context.Context, app.Provider) error
		refuse bool
		kind   errs.Kind
		reason string
		msg    string // SERVER stands for the address
	}{
		{
			"a wrong secret", with(func(a *access) { a.secret = wrongSecret }), write("example.org", name), false, errs.Forbidden, "DNS_TSIG_REFUSED",
			`the name server SERVER refused the signature of the TSIG key "acme-key" (hmac-sha256) (BADSIG); the secret is not the one that it has for this key: make a DNS account with the right secret and disable this one`,
		},
		{
			"a key that the server does not know", with(func(a *access) { a.key = "Nobody." }), write("example.org", name), false, errs.Forbidden, "DNS_TSIG_REFUSED",
			`the name server SERVER does not know the TSIG key "nobody" (hmac-sha256) (BADKEY); give the name and algorithm as its configuration has them, or add the key there`,
		},
		{
			"a zone that the server does not have", good(s.Addr), write("example.net", "_acme-challenge.example.net"), false, errs.Precondition, "DNS_ZONE_NOT_AUTH",
			`the name server SERVER is not authoritative for the zone example.net (NOTAUTH); give the account the zone that it serves as primary, or the server that serves this zone`,
		},
		{
			"a key that may not change the name", good(s.Addr), write("example.org", name), true, errs.Forbidden, "DNS_UPDATE_REFUSED",
			`the name server SERVER refused to change _acme-challenge.www.example.org for the TSIG key "acme-key" (hmac-sha256) (REFUSED); allow it there, e.g. in BIND: update-policy { grant acme-key zonesub TXT; };`,
		},
		{
			"a server that is not there", good(closed), write("example.org", name), false, errs.Unavailable, "DNS_SERVER_UNREACHABLE",
			`the name server SERVER cannot be reached: connect: connection refused; check the address, that it runs, and that TCP to it is let through`,
		},
		{
			"a server that says nothing", good(silent.Addr().String()), write("example.org", name), false, errs.Timeout, "DNS_SERVER_NO_ANSWER",
			`the name server SERVER took the connection but gave no answer: i/o timeout`,
		},
		{
			"a name that is an alias", good(s.Addr), func(ctx context.Context, p app.Provider) error {
				_, err := p.Read(ctx, "example.org", "_acme-challenge.alias.example.org")
				return err
			}, false, errs.Precondition, "DNS_NAME_IS_CNAME",
			`_acme-challenge.alias.example.org is an alias (CNAME) of elsewhere.test, so it takes no TXT record; remove the alias, or prove control by http-01`,
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			s.Refuse(row.refuse)
			defer s.Refuse(false)
			before := s.Updates()
			err := row.do(within(t, time.Second), open(t, row.access))
			require.Equal(t, row.kind, errs.KindOf(err), "%v", err)
			require.Equal(t, row.reason, errs.ReasonOf(err))
			require.Empty(t, cmp.Diff(strings.ReplaceAll(row.msg, "SERVER", row.access.server), err.Error()))
			require.Equal(t, before, s.Updates())
		})
	}
}

func TestSettingsAreCheckedAtTheDoor(t *testing.T) {
	kind := rfc2136.Kind{Clock: clock.System()}
	_, _, wrong := kind.Check(domain.Account{Settings: map[string]string{
		rfc2136.SettingServer: "ns1.example.org:dns", rfc2136.SettingKeyName: "a key", rfc2136.SettingAlgorithm: "md5",
	}}, app.Secrets{rfc2136.SecretTSIG: secret.New("not base64!")})
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "server", Msg: `"ns1.example.org:dns" given; give the zone's primary name server as host:port, e.g. ns1.example.org:53 or [2001:db8::53]:53`},
		{Name: "tsigKeyName", Msg: `"a key" is not a DNS name: ' ' is not allowed; use letters, digits, - and _ (international names as xn--…); give the name of the key as the name server's configuration has it`},
		{Name: "tsigAlgorithm", Msg: `"md5" given, allowed: hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512`},
		{Name: "tsigSecret", Msg: "is not base64; give the secret of the key as tsig-keygen prints it, without quotes"},
	}, wrong))

	settings, credential, wrong := kind.Check(domain.Account{Settings: map[string]string{rfc2136.SettingServer: "ns1.example.org", rfc2136.SettingKeyName: "ACME-Key."}},
		app.Secrets{rfc2136.SecretTSIG: secret.New(dnstest.Secret)})
	require.Empty(t, wrong)
	require.Equal(t, dnstest.Secret, credential.Reveal(), "as the version before stores it")
	require.Equal(t, map[string]string{
		rfc2136.SettingServer: "ns1.example.org:53", rfc2136.SettingKeyName: "acme-key", rfc2136.SettingAlgorithm: "hmac-sha256",
	}, settings)
}

func TestBIND(t *testing.T) {
	addr := dnstest.BIND(t)
	ctx := within(t, testkit.Deadline)
	p := open(t, good(addr))

	t.Run("the values of a wildcard and its apex are both there", func(t *testing.T) {
		const apex = "_acme-challenge.example.org"
		require.NoError(t, apply(ctx, p, "example.org", apex, []string{"of the apex"}, nil))
		require.NoError(t, apply(ctx, p, "example.org", apex, []string{"of the apex", "of the wildcard"}, nil))
		values, err := p.Read(ctx, "example.org", apex)
		require.NoError(t, err)
		slices.Sort(values)
		require.Equal(t, []string{"of the apex", "of the wildcard"}, values)

		require.NoError(t, apply(ctx, p, "example.org", apex, []string{"of the wildcard"}, []string{"of the apex"}))
		values, err = p.Read(ctx, "example.org", apex)
		require.NoError(t, err)
		require.Equal(t, []string{"of the wildcard"}, values)
	})

	table := []struct {
		name   string
		access access
		zone   string
		fqdn   string
		reason string
		msg    string
	}{
		{
			"a wrong secret is refused, naming server and key", access{server: addr, key: dnstest.KeyName, secret: wrongSecret}, "example.org", name, "DNS_TSIG_REFUSED",
			`the name server SERVER refused the signature of the TSIG key "acme-key" (hmac-sha256) (BADSIG); the secret is not the one that it has for this key: make a DNS account with the right secret and disable this one`,
		},
		{
			"an unknown key is refused", access{server: addr, key: "nobody", secret: dnstest.Secret}, "example.org", name, "DNS_TSIG_REFUSED",
			`the name server SERVER does not know the TSIG key "nobody" (hmac-sha256) (BADKEY); give the name and algorithm as its configuration has them, or add the key there`,
		},
		{
			"a wrong algorithm is refused", access{server: addr, key: dnstest.KeyName, secret: dnstest.Secret, algorithm: "hmac-sha512"}, "example.org", name, "DNS_TSIG_REFUSED",
			`the name server SERVER does not know the TSIG key "acme-key" (hmac-sha512) (BADKEY); give the name and algorithm as its configuration has them, or add the key there`,
		},
		{
			"a zone that it does not serve is named", good(addr), "example.net", "_acme-challenge.example.net", "DNS_ZONE_NOT_AUTH",
			`the name server SERVER is not authoritative for the zone example.net (NOTAUTH); give the account the zone that it serves as primary, or the server that serves this zone`,
		},
		{
			"a key without a grant is refused", access{server: addr, key: "weak", secret: dnstest.Secret}, "example.org", name, "DNS_UPDATE_REFUSED",
			`the name server SERVER refused to change _acme-challenge.www.example.org for the TSIG key "weak" (hmac-sha256) (REFUSED); allow it there, e.g. in BIND: update-policy { grant weak zonesub TXT; };`,
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			err := apply(ctx, open(t, row.access), row.zone, row.fqdn, []string{"v"}, nil)
			require.Equal(t, row.reason, errs.ReasonOf(err), "%v", err)
			require.Empty(t, cmp.Diff(strings.ReplaceAll(row.msg, "SERVER", addr), err.Error()))
		})
	}
}
