package setup

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/certwright/certwright/api/events"
	sharedbus "github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
)

// bus is the name of the NATS server among the parties.
const bus = "nats"

// consumers are the durable consumers of each service. The gateway has none: it reads the stream for its feed, under names that the client draws.
var consumers = map[string][]string{
	"identity": nil, "gateway": nil,
	"inventory":     {"inventory-orders", "inventory-renewals", "inventory-revocations", "inventory-deployments"},
	"keys":          {"keys-outcomes"},
	"orders":        {"orders-saga"},
	"challenges":    {"challenges-orders", "challenges-dns"},
	"dns":           {"dns-records"},
	"renewals":      {"renewals-saga"},
	"deployer":      {"deployer-versions"},
	"notifications": {"notifications-events"},
}

// names are the services, in the order of their ports.
func names() []string {
	return []string{"gateway", "identity", "inventory", "keys", "orders", "challenges", "dns", "renewals", "deployer", "notifications"}
}

// permissions are the subjects of a service's NATS user.
func permissions(service string) (pub, sub []string) {
	var tells, hears []string
	for _, t := range events.Types() {
		m, _ := events.New(t)
		o := events.Options(m)
		if o.GetToldBy() == service {
			tells = append(tells, t)
		}
		if slices.Contains(o.GetActedOnBy(), service) || service == "gateway" {
			hears = append(hears, t)
		}
	}
	return sharedbus.Permissions(service, tells, hears, consumers[service]...)
}

// user makes the nkey of a service. The public half stays beside it, so that the list of users can be written when the seed has gone to its host.
func user(w *writer, name string) error {
	seedFile, publicFile := filepath.Join(name, "nats.seed"), filepath.Join(name, "nats.pub")
	public, err := w.read(publicFile)
	if err != nil {
		return err
	}
	seed, err := w.read(seedFile)
	if err != nil {
		return err
	}
	if seed == nil && public != nil {
		return errs.New(errs.Precondition, "INIT_KEY_MISMATCH", "%s is there without %s; put the seed back, or remove both files to make a new user", publicFile, seedFile)
	}
	if err := w.keep(seedFile, func() ([]byte, error) {
		made, err := nkeys.CreateUser()
		if err != nil {
			return nil, err
		}
		seed, err = made.Seed()
		return append(slices.Clone(seed), '\n'), err
	}); err != nil {
		return err
	}
	pair, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return errs.New(errs.Precondition, "INIT_FILES_UNUSABLE", "%s holds no nkey seed: %w", seedFile, err)
	}
	id, err := pair.PublicKey()
	if err != nil {
		return err
	}
	if public != nil && strings.TrimSpace(string(public)) != id {
		return errs.New(errs.Precondition, "INIT_KEY_MISMATCH", "%s is not the public key of %s; remove it", publicFile, seedFile)
	}
	return w.keep(publicFile, func() ([]byte, error) { return []byte(id + "\n"), nil })
}

// natsFiles writes the server's configuration, once, and the list of its users, which follows from the services and this version's contracts.
func (p *plan) natsFiles(w *writer) error {
	var users strings.Builder
	users.WriteString("# Written by \"certwright init\", again whenever it runs: a user for each service, and the subjects that it needs.\nusers = [\n")
	for _, name := range names() {
		public, err := w.read(filepath.Join(name, "nats.pub"))
		if err != nil {
			return err
		}
		if public == nil {
			continue
		}
		pub, sub := permissions(name)
		fmt.Fprintf(&users, "  { # %s\n    nkey: %q\n    permissions: {\n      publish: { allow: [%s] }\n      subscribe: { allow: [%s] }\n    }\n  }\n",
			name, strings.TrimSpace(string(public)), quoted(pub), quoted(sub))
	}
	users.WriteString("]\n")
	if err := w.follow(filepath.Join(bus, "users.conf"), []byte(users.String())); err != nil {
		return err
	}
	dir, store, listen := "/etc/certwright", "/data", "0.0.0.0:"+strings.TrimPrefix(p.listen[bus], ":")
	if p.Form == FormHosts {
		dir, store = filepath.Join(p.Dir, bus), filepath.Join(p.DataDir, bus)
		if host, _, _ := net.SplitHostPort(p.listen[bus]); host != "" {
			listen = p.listen[bus]
		}
	}
	return w.keep(filepath.Join(bus, "nats.conf"), func() ([]byte, error) {
		return fmt.Appendf(nil, `# Configuration of the NATS server, made by "certwright init". It is yours: init never changes it again.
server_name: certwright
listen: %q
max_payload: 4MB

jetstream {
  store_dir: %q
  # How often files are synced. Services keep what they told for three times as long: nats.sync_interval of their configuration says the same.
  sync_interval: %q
}

# Everything on the wire is encrypted; clients are known by their nkeys.
tls {
  cert_file: %q
  key_file: %q
  timeout: 5
}

authorization {
  timeout: 5
  include "users.conf"
}
`, listen, store, syncInterval, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")), nil
	})
}

func quoted(subjects []string) string {
	out := make([]string, len(subjects))
	for i, s := range subjects {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}
