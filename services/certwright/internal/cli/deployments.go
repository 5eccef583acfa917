package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
)

func targetList() listing[*deployerv1.ListTargetsResponse, *deployerv1.Target] {
	type t = *deployerv1.Target
	return listing[*deployerv1.ListTargetsResponse, t]{
		path: "/v1/targets", items: (*deployerv1.ListTargetsResponse).GetTargets,
		columns: []column[t]{
			{"ID", t.GetId},
			{"NAME", t.GetDisplayName},
			{"KIND", t.GetKind},
			{"HOST", func(t t) string { return t.GetFile().GetHost() }},
			{"PROBED AT", t.GetProbeAddress},
			{"TEAM", t.GetTeam},
		},
	}
}

func (a *app) targets() *cobra.Command {
	k := kindOf(a, targetList(), "tgt_")
	return group("targets", "Manage the places that serve certificates", a.createTarget(), targetList().command(a, "List targets"),
		about(a, k, "get ID|NAME", "Show a target", "", nil, a.showTarget),
		a.deleting(k, "delete ID|NAME", "Delete a target; the files on the host stay", "target", &deployerv1.DeleteTargetResponse{}, nil),
	)
}

func (a *app) showTarget(t *deployerv1.Target) error {
	f := t.GetFile()
	return a.showPairs(t, []pair{
		{"id", t.GetId()},
		{"name", t.GetDisplayName()},
		{"team", t.GetTeam()},
		{"kind", t.GetKind()},
		{"host", f.GetHost()},
		{"certificate", f.GetCertificatePath()},
		{"chain", f.GetChainPath()},
		{"full chain", f.GetFullchainPath()},
		{"key", f.GetKeyPath()},
		{"bundle", f.GetBundlePath()},
		{"files' owner", f.GetOwner()},
		{"files' group", f.GetGroup()},
		{"mode", f.GetMode()},
		{"key mode", f.GetKeyMode()},
		{"reload", f.GetReload()},
		{"probed at", t.GetProbeAddress()},
		{"probed as", t.GetProbeServerName()},
		{"created", stamp(t.GetCreateTime())},
	})
}

func (a *app) createTarget() *cobra.Command {
	file := &deployerv1.FileTarget{}
	t := &deployerv1.Target{Kind: "file", File: file}
	cmd := a.verb("create NAME", "Add files on a host as a target", 1, func(ctx context.Context, c *client, args []string) error {
		if file.GetCertificatePath()+file.GetFullchainPath()+file.GetBundlePath()+file.GetChainPath()+file.GetKeyPath() == "" {
			return usage("no file is named; give at least --fullchain-path and --key-path, or --bundle-path")
		}
		t.DisplayName = args[0]
		made := &deployerv1.Target{}
		if err := c.call(ctx, http.MethodPost, "/v1/targets", nil, &deployerv1.CreateTargetRequest{RequestId: a.requestID(), Target: t}, made); err != nil {
			return err
		}
		return a.showTarget(made)
	})
	cmd.Long = `Add files on a host as a target. Which paths may be written and which commands may be run is decided by the host's own configuration (allowed_roots and
named commands of the deployer that serves it); a target only picks among them.`
	cmd.Example = "  certwright targets create front --host web1 --fullchain-path /etc/nginx/tls/www.pem --key-path /etc/nginx/tls/www.key --reload nginx --probe-address 192.0.2.1:443"
	f := cmd.Flags()
	f.StringVar(&file.Host, "host", "", "`name` of the host in the configuration of its deployer")
	f.StringVar(&file.CertificatePath, "certificate-path", "", "absolute `path` for the certificate alone")
	f.StringVar(&file.ChainPath, "chain-path", "", "absolute `path` for the chain alone")
	f.StringVar(&file.FullchainPath, "fullchain-path", "", "absolute `path` for certificate and chain")
	f.StringVar(&file.KeyPath, "key-path", "", "absolute `path` for the private key")
	f.StringVar(&file.BundlePath, "bundle-path", "", "absolute `path` for certificate, chain and key in one file")
	f.StringVar(&file.Owner, "file-owner", "", "`user` that the files belong to; default: unchanged")
	f.StringVar(&file.Group, "file-group", "", "`group` that the files belong to; default: unchanged")
	f.StringVar(&file.Mode, "mode", "", "octal `mode` of files without a key (default 0644)")
	f.StringVar(&file.KeyMode, "key-mode", "", "octal `mode` of files with a key (default 0600)")
	f.StringVar(&file.Reload, "reload", "", "`name` of the host's command that makes its server read the files")
	f.StringVar(&t.ProbeAddress, "probe-address", "", "where to look at what is served, `host:port`; default: not probed")
	f.StringVar(&t.ProbeServerName, "probe-server-name", "", "server `name` that the probe sends; default: the certificate's first name")
	f.StringVar(&t.Team, "team", "", "`team` that it belongs to; default: the token's")
	return cmd
}

func bindingList() listing[*deployerv1.ListBindingsResponse, *deployerv1.Binding] {
	type b = *deployerv1.Binding
	return listing[*deployerv1.ListBindingsResponse, b]{
		path: "/v1/bindings", items: (*deployerv1.ListBindingsResponse).GetBindings,
		columns: []column[b]{
			{"ID", b.GetId},
			{"CERTIFICATE", b.GetCertificateId},
			{"TARGET", b.GetTargetId},
			{"WANTED", b.GetDesiredVersionId},
			{"SERVED", b.GetServedVersionId},
			{"TEAM", b.GetTeam},
		},
	}
}

func (a *app) bindings() *cobra.Command {
	create := a.verb("create CERTIFICATE TARGET", "Let a target serve a certificate, each given by id or name", 2, func(ctx context.Context, c *client, args []string) error {
		certificate, err := a.findCertificate(ctx, args[0])
		if err != nil {
			return err
		}
		target, err := resolve(ctx, a, targetList(), "tgt_", args[1])
		if err != nil {
			return err
		}
		b := &deployerv1.Binding{}
		if err := c.call(ctx, http.MethodPost, "/v1/bindings", nil, &deployerv1.CreateBindingRequest{CertificateId: certificate, TargetId: target}, b); err != nil {
			return err
		}
		return a.showPairs(b, []pair{
			{"id", b.GetId()},
			{"certificate", b.GetCertificateId()},
			{"target", b.GetTargetId()},
			{"wanted version", b.GetDesiredVersionId()},
			{"served version", b.GetServedVersionId()},
			{"team", b.GetTeam()},
		})
	})
	create.ValidArgsFunction = func(cmd *cobra.Command, have []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(have) == 0 {
			return ids(a, certificateList(), 1)(cmd, have, part)
		}
		return ids(a, targetList(), 2)(cmd, have, part)
	}
	k := nameless(a, bindingList(), func(b *deployerv1.Binding) string {
		return b.GetId() + "\t" + b.GetCertificateId() + " at " + b.GetTargetId()
	})
	return group("bindings", "Say which target serves which certificate", create,
		bindingList().command(
			a, "List bindings",
			filter{flag: "certificate", field: "certificate", usage: "only those of the certificate with this `id`"},
			filter{flag: "target", field: "target", usage: "only those of the target with this `id`"},
		),
		a.deleting(k, "delete ID", "Detach a certificate from a target; the files on the host stay", "binding", &deployerv1.DeleteBindingResponse{}, nil),
	)
}

func deploymentList() listing[*deployerv1.ListDeploymentsResponse, *deployerv1.Deployment] {
	type d = *deployerv1.Deployment
	return listing[*deployerv1.ListDeploymentsResponse, d]{
		path: "/v1/deployments", items: (*deployerv1.ListDeploymentsResponse).GetDeployments,
		columns: []column[d]{
			{"ID", d.GetId},
			{"TARGET", d.GetTargetId},
			{"CERTIFICATE", d.GetCertificateId},
			{"VERSION", d.GetVersionId},
			{"STATE", d.GetState},
			{"UPDATED", func(d d) string { return stamp(d.GetUpdateTime()) }},
			{"PROBLEM", func(d d) string { return d.GetProblem().GetReason() }},
		},
	}
}

func (a *app) deployments() *cobra.Command {
	k := nameless(a, deploymentList(), func(d *deployerv1.Deployment) string { return d.GetId() + "\t" + d.GetTargetId() + " " + d.GetState() })
	return group("deployments", "Look at deployments, retry them",
		deploymentList().command(
			a, "List deployments",
			filter{flag: "certificate", field: "certificate", usage: "only those of the certificate with this `id`"},
			filter{flag: "target", field: "target", usage: "only those at the target with this `id`"},
			filter{flag: "binding", field: "binding", usage: "only those of the binding with this `id`"},
			filter{flag: "state", field: "state", usage: "only those in this `state`", values: []string{"queued", "installing", "activating", "verifying", "succeeded", "rolling_back", "rolled_back", "stuck", "failed", "superseded"}},
		),
		about(a, k, "get ID", "Show a deployment with its steps", "", nil, a.showDeployment),
		about(a, k, "retry ID", "Try a deployment again now", ":retry", &deployerv1.RetryDeploymentRequest{}, a.showDeployment),
	)
}

func (a *app) showDeployment(d *deployerv1.Deployment) error {
	pairs := []pair{
		{"id", d.GetId()},
		{"state", d.GetState()},
		{"problem", why(d.GetProblem())},
		{"next try", stamp(d.GetRetryAt())},
		{"certificate", d.GetCertificateId()},
		{"version", d.GetVersionId()},
		{"target", d.GetTargetId()},
		{"binding", d.GetBindingId()},
		{"attempts", number(d.GetAttempts())},
		{"served", d.GetServedFingerprintSha256()},
		{"created", stamp(d.GetCreateTime())},
		{"updated", stamp(d.GetUpdateTime())},
	}
	for _, s := range d.GetSteps() {
		ok := "ok"
		if !s.GetOk() {
			ok = "failed"
		}
		pairs = append(pairs, pair{"step", strings.TrimSpace(fmt.Sprintf("%s %s %s %s", stamp(s.GetTime()), s.GetStep(), ok, s.GetDetail()))})
	}
	return a.showPairs(d, pairs)
}
