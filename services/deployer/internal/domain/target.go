// Package domain is the rules of putting versions on servers: targets, bindings, and the state machine of a deployment. It touches no file and no network.
package domain

import (
	"bytes"
	"cmp"
	"encoding/pem"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// Never is a moment that does not come (the store's greatest).
var Never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// KindFile is the kind of targets that are files on a host.
const KindFile = "file"

// DefaultHost is the host of a target that names none.
const DefaultHost = "local"

// Target is a place that serves certificates.
type Target struct {
	DisplayName     string     `bson:"display_name"`
	Kind            string     `bson:"kind"`
	File            FileTarget `bson:"file"`
	ProbeAddress    string     `bson:"probe_address"`     // host:port; empty: nothing is probed
	ProbeServerName string     `bson:"probe_server_name"` // empty: the certificate's first name
	ForgetAt        time.Time  `bson:"forget_at"`
}

// FileTarget is files on a host. Empty paths are not written.
type FileTarget struct {
	Host            string `bson:"host"`
	CertificatePath string `bson:"certificate_path"` // the leaf
	ChainPath       string `bson:"chain_path"`       // without the leaf
	FullchainPath   string `bson:"fullchain_path"`   // leaf and chain
	KeyPath         string `bson:"key_path"`
	BundlePath      string `bson:"bundle_path"` // leaf, chain and key
	Owner           string `bson:"owner"`       // name or number; empty: as it is
	Group           string `bson:"group"`
	Mode            string `bson:"mode"`     // octal
	KeyMode         string `bson:"key_mode"` // octal, of files with a key
	Reload          string `bson:"reload"`   // name of a command of the host; empty: none
}

// Validate fills defaults and refuses what can never work: Invalid TARGET_INVALID with one field per mistake. Whether the host allows it is the
// host's business.
func (t *Target) Validate() error {
	wrong := errs.New(errs.Invalid, "TARGET_INVALID", "the target is not valid")
	t.Kind, t.File.Host = cmp.Or(t.Kind, KindFile), cmp.Or(t.File.Host, DefaultHost)
	t.File.Mode, t.File.KeyMode = cmp.Or(t.File.Mode, "0644"), cmp.Or(t.File.KeyMode, "0600")
	if t.Kind != KindFile {
		wrong = wrong.WithField("target.kind", "is %q; allowed is %q", t.Kind, KindFile)
	}
	if len(t.DisplayName) > 200 {
		wrong = wrong.WithField("target.displayName", "has %d bytes; at most 200 are allowed", len(t.DisplayName))
	}
	seen := map[string]string{}
	for _, p := range []struct{ field, path string }{
		{"certificatePath", t.File.CertificatePath},
		{"fullchainPath", t.File.FullchainPath},
		{"bundlePath", t.File.BundlePath},
		{"chainPath", t.File.ChainPath},
		{"keyPath", t.File.KeyPath},
	} {
		switch first := seen[filepath.Clean(p.path)]; {
		case p.path == "":
			continue
		case !filepath.IsAbs(p.path):
			wrong = wrong.WithField("target.file."+p.field, "is %q; give an absolute path", p.path)
		case first != "":
			wrong = wrong.WithField("target.file."+p.field, "is the same file as %s; each content has its own file (bundlePath is leaf, chain and key in one)", first)
		}
		seen[filepath.Clean(p.path)] = p.field
	}
	if t.File.CertificatePath == "" && t.File.FullchainPath == "" && t.File.BundlePath == "" {
		wrong = wrong.WithField("target.file", "names no file for the certificate; give certificatePath, fullchainPath or bundlePath")
	}
	if _, err := mode(t.File.Mode); err != nil {
		wrong = wrong.WithField("target.file.mode", "is %q; give octal permissions of at most 0777, e.g. 0644", t.File.Mode)
	}
	if m, err := mode(t.File.KeyMode); err != nil || m&0o007 != 0 {
		wrong = wrong.WithField("target.file.keyMode", "is %q; give octal permissions with nothing for others, e.g. 0600 or 0640", t.File.KeyMode)
	}
	if t.ProbeAddress != "" {
		host, port, err := net.SplitHostPort(t.ProbeAddress)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
			wrong = wrong.WithField("target.probeAddress", "is %q; give host:port, e.g. www.example.com:443", t.ProbeAddress)
		}
	}
	if len(wrong.Fields) > 0 {
		return wrong
	}
	return nil
}

// HasKey reports whether the target wants the private key.
func (f FileTarget) HasKey() bool { return f.KeyPath != "" || f.BundlePath != "" }

// File is one file to be installed. Its content is Public, followed by the key in PEM when WithKey.
type File struct {
	Path    string
	Public  []byte
	WithKey bool
	// Certificate is true when Public begins with the leaf.
	Certificate  bool
	Mode         fs.FileMode
	Owner, Group string
}

// Files says what the target's files contain for a chain (DER, leaf first).
func (f FileTarget) Files(chain [][]byte) ([]File, error) {
	public, err := mode(f.Mode)
	if err != nil {
		return nil, err
	}
	private, err := mode(f.KeyMode)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errs.New(errs.Internal, "", "a chain without a certificate")
	}
	leaf, rest := PEM(chain[:1]), PEM(chain[1:])
	full := slices.Concat(leaf, rest)
	all := []File{
		{Path: f.CertificatePath, Public: leaf, Certificate: true, Mode: public},
		{Path: f.FullchainPath, Public: full, Certificate: true, Mode: public},
		{Path: f.BundlePath, Public: full, Certificate: true, WithKey: true, Mode: private},
		{Path: f.ChainPath, Public: rest, Mode: public},
		{Path: f.KeyPath, WithKey: true, Mode: private},
	}
	var out []File
	for _, file := range all {
		if file.Path != "" {
			file.Owner, file.Group = f.Owner, f.Group
			out = append(out, file)
		}
	}
	return out, nil
}

// PEM encodes certificates.
func PEM(chain [][]byte) []byte {
	var b bytes.Buffer
	for _, der := range chain {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer takes everything
	}
	return b.Bytes()
}

func mode(octal string) (fs.FileMode, error) {
	m, err := strconv.ParseUint(octal, 8, 32)
	if err != nil || m > 0o777 {
		return 0, errs.New(errs.Invalid, "TARGET_INVALID", "%q is no file mode", octal)
	}
	return fs.FileMode(m), nil
}
