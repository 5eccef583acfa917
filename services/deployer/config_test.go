package deployer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
)

func TestConfig(t *testing.T) {
	require.NoError(t, Defaults().Validate())
	c := Defaults()
	c.Hosts = map[string]Host{"local": {
		AllowedRoots: []string{"certs", "/"}, Commands: map[string][]string{"nginx": {"nginx", "-s", "reload"}, "none": {}}, CommandTimeout: time.Hour,
	}}
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "hosts.local.allowed_roots", Msg: `has "certs"; give absolute directories, and not the root of the file system`},
		{Name: "hosts.local.allowed_roots", Msg: `has "/"; give absolute directories, and not the root of the file system`},
		{Name: "hosts.local.commands.nginx", Msg: `is ["nginx" "-s" "reload"]; give the absolute path of a program and its arguments, each a list item`},
		{Name: "hosts.local.commands.none", Msg: `is []; give the absolute path of a program and its arguments, each a list item`},
		{Name: "hosts.local.command_timeout", Msg: `is 1h0m0s; allowed are 0 (30s) to 10m`},
	}, errs.As(c.Validate()).Fields))

	c.Hosts = map[string]Host{"b": {CommandTimeout: time.Minute}, "a": {}}
	require.NoError(t, c.Validate())
	require.Equal(t, 2*time.Minute+10*time.Second, c.lease(time.Minute), "the slowest command ends in the first half")
	_, err := c.hosts().Host("x")
	require.Equal(t, "DEPLOY_HOST_UNKNOWN", errs.ReasonOf(err))
	require.ErrorContains(t, err, `there is no host "x"; configured are a, b`)
	_, err = Defaults().hosts().Host("local")
	require.ErrorContains(t, err, "no host is configured")
	_, err = c.hosts().Host("a")
	require.NoError(t, err)
}
