// Package filehost puts certificate files on the host that this process runs on, and runs the host's reload commands. What is allowed is the host's own
// configuration: directories and named commands. Nothing is ever written outside the allowed directories, through symbolic links neither.
//
// Files are replaced one by one, each atomically, after all of them have been written beside their places. What was there before is kept once, as
// <path>.certwright-prev. A note beside the first file (.certwright-<binding>.json) holds the generation installed: a lower one is refused, which is
// what a lease cannot do.
package filehost

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

// Config is what a host allows.
type Config struct {
	// AllowedRoots are the absolute directories below which files may be written.
	AllowedRoots []string
	// Commands are the reload commands by name: program (absolute) and arguments. No shell is involved.
	Commands map[string][]string
	// CommandTimeout is how long a command may take.
	CommandTimeout time.Duration
}

// Host is one host.
type Host struct {
	name string
	cfg  Config
}

// New makes a host. The configuration has been checked.
func New(name string, cfg Config) *Host { return &Host{name: name, cfg: cfg} }

// Check refuses a target that this host does not allow: Invalid DEPLOY_PATH_NOT_ALLOWED or DEPLOY_COMMAND_UNKNOWN, one field per mistake. Directories that
// do not exist yet are no mistake here.
func (h *Host) Check(t domain.FileTarget) error {
	for _, p := range []struct{ field, path string }{
		{"certificatePath", t.CertificatePath},
		{"chainPath", t.ChainPath},
		{"fullchainPath", t.FullchainPath},
		{"keyPath", t.KeyPath},
		{"bundlePath", t.BundlePath},
	} {
		if p.path == "" {
			continue
		}
		if _, err := h.place(p.path); err != nil {
			return errs.As(err).WithField("target.file."+p.field, "is %q; allowed are files below %s", p.path, h.roots())
		}
	}
	if t.Reload != "" {
		if _, err := h.command(t.Reload); err != nil {
			return errs.As(err).WithField("target.file.reload", "is %q; %s", t.Reload, h.commands())
		}
	}
	return nil
}

func (h *Host) roots() string {
	if len(h.cfg.AllowedRoots) == 0 {
		return "none (the host's configuration has no allowed_roots)"
	}
	return strings.Join(h.cfg.AllowedRoots, ", ")
}

func (h *Host) commands() string {
	if len(h.cfg.Commands) == 0 {
		return "the host's configuration names no commands"
	}
	return "allowed are " + strings.Join(slices.Sorted(maps.Keys(h.cfg.Commands)), ", ")
}

func (h *Host) command(name string) ([]string, error) {
	argv, ok := h.cfg.Commands[name]
	if !ok || len(argv) == 0 {
		return nil, errs.New(errs.Invalid, "DEPLOY_COMMAND_UNKNOWN",
			"the host %q has no command %q; %s. A command is added in the host's own configuration", h.name, name, h.commands())
	}
	return argv, nil
}

// place is a path that is allowed: a file in a directory below an allowed root. Both are free of symbolic links at the time of the look; os.Root
// keeps it so afterwards.
type place struct {
	path string // as configured, cleaned
	root string // resolved
	rel  string // below root
}

func (p place) dir() string { return filepath.Dir(p.rel) }

// place finds the allowed root of a path. A path that leaves its root, through ".." or a symbolic link, is refused.
func (h *Host) place(path string) (place, error) {
	clean := filepath.Clean(path)
	refuse := func(why string) error {
		return errs.New(errs.Invalid, "DEPLOY_PATH_NOT_ALLOWED", "the path %q is not allowed on the host %q: %s. Allowed are files below %s; "+
			"choose one of them, or add the directory to allowed_roots in the host's own configuration", path, h.name, why, h.roots())
	}
	if !filepath.IsAbs(clean) {
		return place{}, refuse("it is not absolute")
	}
	escapes := false
	for _, root := range h.cfg.AllowedRoots {
		if !below(clean, filepath.Clean(root)) {
			continue
		}
		resolvedRoot, err := filepath.EvalSymlinks(root)
		if err != nil {
			continue // a root that does not exist allows nothing
		}
		resolved, err := resolve(filepath.Dir(clean))
		if err != nil {
			return place{}, refuse("its directory cannot be looked at (" + reason(err) + ")")
		}
		if resolved != resolvedRoot && !below(resolved, resolvedRoot) {
			escapes = true
			continue
		}
		rel, err := filepath.Rel(resolvedRoot, filepath.Join(resolved, filepath.Base(clean)))
		if err != nil {
			continue
		}
		return place{path: clean, root: resolvedRoot, rel: rel}, nil
	}
	if escapes {
		return place{}, refuse("a symbolic link leads out of the allowed directory")
	}
	return place{}, refuse("it lies outside")
}

func below(path, root string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(root, string(filepath.Separator))+string(filepath.Separator))
}

// resolve follows the symbolic links of a directory as far as it exists.
func resolve(dir string) (string, error) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	if _, err := os.Lstat(dir); err == nil {
		return "", errors.New("a symbolic link leads nowhere")
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return dir, nil
	}
	above, err := resolve(parent)
	return filepath.Join(above, filepath.Base(dir)), err
}

func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// files are the open directories of one piece of work.
type files struct {
	roots map[string]*os.Root
}

func (f *files) close() {
	for _, r := range f.roots {
		_ = r.Close()
	}
}

func (f *files) root(p place) (*os.Root, error) {
	if r := f.roots[p.root]; r != nil {
		return r, nil
	}
	r, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, notWritable(p.root, err)
	}
	f.roots[p.root] = r
	return r, nil
}

// notWritable names directory, user and mode.
func notWritable(dir string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	var se *os.SyscallError
	cause := err
	switch {
	case errors.As(err, &pe):
		cause = pe.Err
	case errors.As(err, &le):
		cause = le.Err
	case errors.As(err, &se):
		cause = se.Err
	}
	if strings.Contains(cause.Error(), "escapes from parent") {
		return errs.New(errs.Invalid, "DEPLOY_PATH_NOT_ALLOWED", "a symbolic link leads out of the allowed directory %q", dir)
	}
	mode := "unknown"
	switch fi, statErr := os.Stat(dir); {
	case errors.Is(statErr, fs.ErrNotExist):
		return errs.New(errs.Precondition, "DEPLOY_DIR_NOT_WRITABLE", "the directory %q does not exist; make it, so that the user %s can write there", dir, user())
	case statErr == nil && !fi.IsDir():
		return errs.New(errs.Precondition, "DEPLOY_DIR_NOT_WRITABLE", "%q is no directory (mode %s); the user %s cannot write files there", dir, fi.Mode(), user())
	case statErr == nil:
		mode = fi.Mode().String()
	}
	return errs.New(errs.Precondition, "DEPLOY_DIR_NOT_WRITABLE", "the directory %q (mode %s) cannot be written by the user %s: %v; give that user the right, or choose another directory",
		dir, mode, user(), cause)
}

func (p place) notWritable(err error) error {
	return notWritable(filepath.Dir(filepath.Join(p.root, p.rel)), err)
}

// places checks every path again and says where the work is done.
func (h *Host) places(paths []string) ([]place, error) {
	out := make([]place, len(paths))
	for i, path := range paths {
		p, err := h.place(path)
		if err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}

// dirs are the directories of the places, each once.
func dirs(places []place) []place {
	out := slices.Clone(places)
	for i := range out {
		out[i].rel = out[i].dir()
	}
	slices.SortFunc(out, func(a, b place) int { return cmp.Or(cmp.Compare(a.root, b.root), cmp.Compare(a.rel, b.rel)) })
	return slices.CompactFunc(out, func(a, b place) bool { return a.root == b.root && a.rel == b.rel })
}
