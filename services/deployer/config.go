package deployer

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/services/deployer/internal/adapters/filehost"
	"github.com/certwright/certwright/services/deployer/internal/app"
	"github.com/certwright/certwright/shared/errs"
)

// Config of the service. Start from Defaults.
type Config struct {
	Hosts map[string]Host `yaml:"hosts" doc:"The hosts whose files this process reaches, by name; targets without a host mean local."`

	VerifyFor    time.Duration `yaml:"verify_for" doc:"How long is looked for the new certificate to be served before rolling back." validate:"min=0,max=1h"`
	VerifyPoll   time.Duration `yaml:"verify_poll" doc:"How often is looked." validate:"min=100ms"`
	ProbeTimeout time.Duration `yaml:"probe_timeout" doc:"How long one look may take." validate:"min=100ms,max=25s"`
	Concurrency  int           `yaml:"concurrency" doc:"How many deployments are worked on at once." validate:"min=1,max=1000"`
}

// Host is what a host allows. Only its operator can say so: the API picks names and cannot define any.
type Host struct {
	AllowedRoots   []string            `yaml:"allowed_roots" doc:"Absolute directories below which files may be written."`
	Commands       map[string][]string `yaml:"commands" doc:"Reload commands by name: absolute program and arguments; no shell."`
	CommandTimeout time.Duration       `yaml:"command_timeout" doc:"How long a command may take, default 30s."`
}

// defaultCommandTimeout is how long a command may take where nothing else is configured.
const defaultCommandTimeout = 30 * time.Second

// Defaults is the configuration of an installation that configures nothing: no host allows anything.
func Defaults() Config {
	return Config{VerifyFor: 30 * time.Second, VerifyPoll: time.Second, ProbeTimeout: 5 * time.Second, Concurrency: 64}
}

// Validate refuses hosts that could not work as meant.
func (c Config) Validate() error {
	wrong := errs.New(errs.Invalid, "CONFIG_INVALID", "the configuration of deployer is not valid")
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		h := c.Hosts[name]
		field := "hosts." + name
		for _, root := range h.AllowedRoots {
			if !filepath.IsAbs(root) || filepath.Clean(root) == string(filepath.Separator) {
				wrong = wrong.WithField(field+".allowed_roots", "has %q; give absolute directories, and not the root of the file system", root)
			}
		}
		for _, command := range slices.Sorted(maps.Keys(h.Commands)) {
			if argv := h.Commands[command]; len(argv) == 0 || !filepath.IsAbs(argv[0]) {
				wrong = wrong.WithField(field+".commands."+command, "is %q; give the absolute path of a program and its arguments, each a list item", argv)
			}
		}
		if h.CommandTimeout < 0 || h.CommandTimeout > 10*time.Minute {
			wrong = wrong.WithField(field+".command_timeout", "is %s; allowed are 0 (30s) to 10m", h.CommandTimeout)
		}
	}
	if len(wrong.Fields) > 0 {
		return wrong
	}
	return nil
}

// lease is long enough for the slowest command in half of it, with time to install before; and never shorter than what the platform's workers use.
func (c Config) lease(usual time.Duration) time.Duration {
	longest := c.ProbeTimeout
	for _, h := range c.Hosts {
		longest = max(longest, cmp.Or(h.CommandTimeout, defaultCommandTimeout))
	}
	return max(usual, 2*(longest+5*time.Second))
}

// hosts are the configured hosts.
type hosts map[string]*filehost.Host

func (c Config) hosts() hosts {
	out := hosts{}
	for name, h := range c.Hosts {
		h.CommandTimeout = cmp.Or(h.CommandTimeout, defaultCommandTimeout)
		out[name] = filehost.New(name, filehost.Config(h))
	}
	return out
}

// Host finds a host by its name.
func (h hosts) Host(name string) (app.Host, error) {
	host, ok := h[name]
	if ok {
		return host, nil
	}
	allowed := "no host is configured"
	if len(h) > 0 {
		allowed = "configured are " + strings.Join(slices.Sorted(maps.Keys(h)), ", ")
	}
	return nil, errs.New(errs.Invalid, "DEPLOY_HOST_UNKNOWN", "there is no host %q; %s. A host is added in the deployer's own configuration (hosts)", name, allowed).
		WithField("target.file.host", "is %q; %s", name, allowed)
}
