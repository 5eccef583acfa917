package setup

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/certwright/certwright/shared/secret"
)

// syncInterval is that of the NATS server's files, see shared/bus.
const syncInterval = "2m"

var configText = template.Must(template.New("config").Funcs(template.FuncMap{"q": func(s string) string { return fmt.Sprintf("%q", s) }}).Parse(
	`# Configuration of the {{.Name}} service, made by "certwright init". It is yours: init never changes it again. docs/config.md lists every key.
# Files are named relative to this one. Environment variables CERTWRIGHT_{{.Env}}_PLATFORM_… and CERTWRIGHT_{{.Env}}_SERVICE_… come on top.
platform:
  data_dir: {{q .Data}}
  listen: {{q .Listen}} # gRPC, for the other services alone: mutual TLS
  health: {{q .Health}} # /healthz, /readyz and /metrics, without TLS
{{- if .Mongo}}
  mongodb_uri: {{q .Mongo}}
{{- end}}
  nats:
    url: {{q .NATS}}
    seed_file: nats.seed
    ca_file: ca.pem
    sync_interval: {{.Sync}} # that of nats.conf
  tls: {cert_file: tls.crt, key_file: tls.key, ca_file: ca.pem}
  principal: {public_key_file: principal.pub{{if .Private}}, private_key_file: principal.key{{end}}}
  peers:
{{- range .Peers}}
    {{.Name}}: {{q .Address}}
{{- end}}
service:{{.Service}}
`))

type peer struct{ Name, Address string }

// config writes the configuration of a service.
func (p *plan) config(name string, mongo secret.Value) ([]byte, error) {
	var peers []peer
	for _, n := range names() {
		peers = append(peers, peer{n, p.address[n]})
	}
	var out bytes.Buffer
	err := configText.Execute(&out, map[string]any{
		"Name": name, "Env": strings.ToUpper(name), "Data": p.DataDir, "Listen": p.listen[name], "Health": p.check[name], "Mongo": mongo.Reveal(),
		"NATS": "tls://" + p.address[bus], "Sync": syncInterval, "Private": name == "gateway", "Peers": peers, "Service": p.section(name),
	})
	return out.Bytes(), err
}

// section is what a service cannot do without, or most installations want to change.
func (p *plan) section(name string) string {
	switch name {
	case "gateway":
		hosts := []string{"localhost", "127.0.0.1", "::1"}
		if host, _, err := net.SplitHostPort(p.address[name]); err == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
		return fmt.Sprintf(`
  https: ":8443"
  # Names and addresses in the edge's certificate, which a local CA makes; or give cert_file and key_file.
  hosts: ["%s"]`, strings.Join(hosts, `", "`))
	case "challenges":
		return `
  http01: {listen: ":5002"} # port 80 of every name that is validated by http-01 has to lead here
  tlsalpn01: {listen: ":5001"} # port 443 of every name that is validated by tls-alpn-01 has to lead here`
	case "deployer":
		return `
  # What a host allows. The API picks names of these and cannot define any.
  hosts: {}
  #  local:
  #    allowed_roots: ["/etc/ssl/sites"]
  #    commands: {reload-nginx: ["/usr/sbin/nginx", "-s", "reload"]}`
	}
	return " {}"
}

// mongoURI is where a service stores; zero for a SQLite file. The MongoDB that comes with the containers has a user for each service.
func (p *plan) mongoURI(w *writer, name string) (secret.Value, error) {
	if !p.MongoURI.IsZero() || p.Form == FormHosts || p.SQLite {
		return p.MongoURI, nil
	}
	file := filepath.Join("mongodb", name+".password")
	if err := w.directory("mongodb", true); err != nil {
		return secret.Value{}, err
	}
	if err := w.keep(file, password); err != nil {
		return secret.Value{}, err
	}
	text, err := w.read(file)
	if err != nil {
		return secret.Value{}, err
	}
	return secret.New(fmt.Sprintf("mongodb://%s:%s@mongodb:27017/?authSource=%s&w=majority&journal=true", name, strings.TrimSpace(string(text)), database(name))), nil
}

func database(service string) string { return "certwright_" + service }

func password() ([]byte, error) { return []byte(rand.Text() + "\n"), nil }

// composeFiles writes what compose.yaml needs beside the services' own directories.
func (p *plan) composeFiles(w *writer) error {
	dirs := []string{"data", filepath.Join(bus, "data")}
	for _, name := range p.Services {
		dirs = append(dirs, filepath.Join("data", name))
	}
	for _, dir := range dirs {
		if err := w.directory(dir, true); err != nil {
			return err
		}
	}
	root, profiles := "", ""
	if p.MongoURI.IsZero() && !p.SQLite {
		var err error
		if root, err = p.mongoFiles(w); err != nil {
			return err
		}
		profiles = "mongodb"
	}
	user := p.Owner
	if user == "" {
		user = fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	}
	bundle := caBundle()
	if bundle == "" {
		w.warn("this host has no bundle of public CAs where one is expected; set CERTWRIGHT_CA_BUNDLE in .env, or public CAs cannot be verified")
	}
	return w.keep(".env", func() ([]byte, error) {
		return fmt.Appendf(nil, `# Variables of compose.yaml, made by "certwright init". Profiles: mongodb, observability (Prometheus and a collector), separated by a comma.
COMPOSE_PROFILES=%s
CERTWRIGHT_MATERIAL=%s
CERTWRIGHT_USER=%s
CERTWRIGHT_CA_BUNDLE=%s
MONGODB_ROOT_PASSWORD=%s
`, profiles, p.Dir, user, cmp.Or(bundle, "/etc/ssl/certs/ca-certificates.crt"), root), nil
	})
}

// mongoFiles makes the script by which a new MongoDB gets its users, and returns the root user's password.
func (p *plan) mongoFiles(w *writer) (root string, err error) {
	if err := w.directory(filepath.Join("mongodb", "data"), true); err != nil {
		return "", err
	}
	if err := w.keep(filepath.Join("mongodb", "root.password"), password); err != nil {
		return "", err
	}
	var script strings.Builder
	script.WriteString("// Made by \"certwright init\". A new MongoDB runs it once: a user for each service, who sees that service's database alone.\n")
	for _, name := range names() {
		held, err := w.read(filepath.Join("mongodb", name+".password"))
		if err != nil {
			return "", err
		}
		if held == nil {
			continue
		}
		fmt.Fprintf(&script, "db.getSiblingDB(%q).createUser({user: %q, pwd: %q, roles: [{role: \"readWrite\", db: %[1]q}]});\n",
			database(name), name, strings.TrimSpace(string(held)))
	}
	if err := w.follow(filepath.Join("mongodb", "init.js"), []byte(script.String())); err != nil {
		return "", err
	}
	held, err := w.read(filepath.Join("mongodb", "root.password"))
	return strings.TrimSpace(string(held)), err
}

// caBundle is the file with the public CAs that this host trusts; empty when none is where distributions put it.
func caBundle() string {
	for _, file := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return ""
}
