package setup

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Command is "certwright init".
func Command() *cobra.Command {
	var o Options
	var mongoFile string
	c := &cobra.Command{
		Use: "init", Short: "Make keys, certificates and configuration for services that are processes of their own", Args: cobra.NoArgs,
		Long: `Make what an installation of many processes needs, in one directory: an internal CA, a certificate and a NATS user for each service, the key that people's
identities are signed with, nats.conf, and a configuration for each service.

What is there is kept: run it again to add what is missing, for example a service that is new in this version. Only lists that follow from the rest are written again.
"certwright serve", the platform in one process, needs none of this.`,
		Example: `  certwright init --dir ./installation
  certwright init --dir /etc/certwright --form hosts --hosts orders=10.0.0.5 --hosts nats=10.0.0.9:4222 --mongodb-uri-file ./mongodb.uri
  certwright init --dir ./installation --renew`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if mongoFile != "" {
				uri, err := secret.FromFile(mongoFile)
				if err != nil {
					return errs.New(errs.Invalid, "INIT_INVALID", "--mongodb-uri-file: %w", err)
				}
				o.MongoURI = uri
			}
			o.Now = clock.System().Now()
			r, err := Run(o)
			if err != nil {
				return err
			}
			return o.report(cmd.OutOrStdout(), r)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "`directory` to put everything in")
	f.StringVar(&o.Form, "form", FormContainers, "`form` of the installation: containers (compose.yaml) or hosts")
	f.StringSliceVar(&o.Services, "services", []string{"all"}, "`services` to make material for, or all")
	f.StringToStringVar(&o.Hosts, "hosts", nil, "`name=address` of a service or of nats, host or host:port; may be given again")
	f.StringVar(&mongoFile, "mongodb-uri-file", "", "`file` with the URI of an existing MongoDB")
	f.BoolVar(&o.SQLite, "sqlite", false, "store in SQLite files instead of MongoDB; one replica of each service, or all on one host")
	f.StringVar(&o.DataDir, "data-dir", "", "`directory` of what the services store (default /var/lib/certwright)")
	f.StringVar(&o.Owner, "owner", "", "`uid:gid` of the services' files, when root runs this (default in containers "+containerUser+")")
	f.BoolVar(&o.Renew, "renew", false, "renew the certificates that have used up two thirds of their life")
	if err := c.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

// report says what was done, and what to do next.
func (o Options) report(out io.Writer, r *Result) error {
	var b strings.Builder
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		dir = o.Dir
	}
	for _, part := range []struct {
		word  string
		files []string
	}{{"made", r.Made}, {"renewed", r.Renewed}, {"kept", r.Kept}} {
		for _, line := range byDirectory(part.files) {
			fmt.Fprintf(&b, "%-8s %s\n", part.word, line)
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "warning  %s\n", w)
	}
	fmt.Fprintf(&b, "\nEverything is in %s, readable by its owner alone. The first certificate ends on %s; \"certwright init --renew\" renews in time.\n", dir, r.Ends.Format(time.DateOnly))
	fmt.Fprintf(&b, "Keep %s offline: only init needs it.\n", filepath.Join(dir, caDir, "ca.key"))
	switch {
	case len(r.Made)+len(r.Renewed) == 0:
		b.WriteString("Nothing was missing.\n")
	case o.Form == FormContainers:
		fmt.Fprintf(&b, `
Next, in the directory of compose.yaml:
  make dist
  docker compose --env-file %[1]s/.env up --build --detach --wait
The edge is then https://localhost:8443; its CA is %[1]s/data/gateway/edge-ca.pem and the administrator's token %[1]s/data/identity/admin.token.
`, dir)
	default:
		fmt.Fprintf(&b, `
Next: copy each service's directory to its host, and run there, in any order:
  nats-server -c %[1]s/nats/nats.conf
  orders -config %[1]s/orders/config.yaml     (and each other service likewise)
docs/deployment.md has units for systemd. The edge is then https://localhost:8443.
`, dir)
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// byDirectory makes a line for each directory.
func byDirectory(files []string) []string {
	var order []string
	in := map[string][]string{}
	for _, f := range files {
		dir := filepath.Dir(f)
		if !slices.Contains(order, dir) {
			order = append(order, dir)
		}
		in[dir] = append(in[dir], filepath.Base(f))
	}
	lines := make([]string, 0, len(order))
	for _, dir := range order {
		lines = append(lines, dir+"/: "+strings.Join(in[dir], " "))
	}
	return lines
}
