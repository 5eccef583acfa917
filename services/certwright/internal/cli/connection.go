package cli

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// DefaultURL is where "certwright serve" listens unless told otherwise.
const DefaultURL = "https://127.0.0.1:8443"

// The variables of the client.
const (
	EnvURL       = "CERTWRIGHT_URL"
	EnvToken     = "CERTWRIGHT_TOKEN"      //nolint:gosec // the name, not the token
	EnvTokenFile = "CERTWRIGHT_TOKEN_FILE" //nolint:gosec // the name, not the token
	EnvCAFile    = "CERTWRIGHT_CA_FILE"
)

// Env lists the variables of the client, which a server's configuration has to ignore.
func Env() []string { return []string{EnvURL, EnvToken, EnvTokenFile, EnvCAFile} }

// stored is the file that login writes.
type stored struct {
	URL   string `json:"url"`
	Token string `json:"token"`
	// CA is PEM; empty: the system's roots.
	CA string `json:"ca,omitempty"`
}

// connection is where to call, and what to show and to expect there.
type connection struct {
	url       *url.URL
	urlFrom   string
	token     secret.Value
	tokenFrom string
	// roots is PEM; empty: the system's.
	roots     []byte
	rootsFrom string
}

// storedPath is where login keeps its file, "" when there is no home.
func (o Options) storedPath() string {
	if dir := o.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "certwright", "cli.yaml")
	}
	if o.Home == "" {
		return ""
	}
	return filepath.Join(o.Home, ".config", "certwright", "cli.yaml")
}

// readStored returns the zero value when there is no file.
func readStored(path string) (stored, error) {
	var s stored
	if path == "" {
		return s, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, errs.New(errs.Precondition, "CLI_FILE_UNREADABLE", "%s cannot be read: %w", path, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return s, errs.New(errs.Precondition, "CLI_FILE_MODE", "%s holds a token and others than you may read or write it (mode %#o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return s, errs.New(errs.Precondition, "CLI_FILE_UNREADABLE", "%s cannot be read: %w", path, err)
	}
	if yaml.UnmarshalStrict(text, &s) != nil { // its error could quote the token
		return s, errs.New(errs.Precondition, "CLI_FILE_INVALID", "%s is not valid; delete it and run certwright login", path)
	}
	return s, nil
}

// connection finds the edge. What is stored for one edge, or lies on this machine for the local one, is never shown to another.
func (a *app) connection() (*connection, error) {
	path := a.storedPath()
	kept, err := readStored(path)
	if err != nil {
		return nil, err
	}
	c := &connection{}
	raw := DefaultURL
	switch {
	case a.url != "":
		raw, c.urlFrom = a.url, "--url"
	case a.Getenv(EnvURL) != "":
		raw, c.urlFrom = a.Getenv(EnvURL), EnvURL
	case kept.URL != "":
		raw, c.urlFrom = kept.URL, path
	default:
		c.urlFrom = "the default"
	}
	if c.url, err = baseURL(raw); err != nil {
		return nil, usage("the URL %q (from %s) %s", raw, c.urlFrom, err.Error())
	}
	theStored := kept.URL != "" && sameURL(kept.URL, c.url)
	theLocal := a.Home != "" && sameURL(DefaultURL, c.url)
	local := filepath.Join(a.Home, ".certwright")

	file := ""
	switch {
	case a.tokenFile != "":
		file, c.tokenFrom = a.tokenFile, "--token-file"
	case a.Getenv(EnvToken) != "":
		c.token, c.tokenFrom = secret.New(strings.TrimSpace(a.Getenv(EnvToken))), EnvToken
	case a.Getenv(EnvTokenFile) != "":
		file, c.tokenFrom = a.Getenv(EnvTokenFile), EnvTokenFile
	case theStored && kept.Token != "":
		c.token, c.tokenFrom = secret.New(kept.Token), path
	case theLocal && exists(filepath.Join(local, "admin.token")):
		file = filepath.Join(local, "admin.token")
		c.tokenFrom = file
	}
	if file != "" {
		read, err := secret.FromFile(file)
		if err != nil {
			return nil, err
		}
		c.token = secret.New(strings.TrimSpace(read.Reveal()))
	}

	file = ""
	switch {
	case a.caFile != "":
		file, c.rootsFrom = a.caFile, "--ca-file "+a.caFile
	case a.Getenv(EnvCAFile) != "":
		file = a.Getenv(EnvCAFile)
		c.rootsFrom = EnvCAFile + "=" + file
	case theStored && kept.CA != "":
		c.roots, c.rootsFrom = []byte(kept.CA), path
	case theLocal && exists(filepath.Join(local, "gateway", "edge-ca.pem")):
		file = filepath.Join(local, "gateway", "edge-ca.pem")
		c.rootsFrom = file
	}
	if file != "" {
		if c.roots, err = readPEM(file); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// baseURL accepts https, and http where no network could see the token.
func baseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(raw, "/"))
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("is not of the form https://host:port")
	case u.Scheme == "https":
		return u, nil
	case u.Scheme == "http":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			return u, nil
		}
		return nil, errors.New("would send the token unencrypted; http is allowed for loopback only, use https")
	}
	return nil, errors.New("has to begin with https://")
}

func sameURL(raw string, u *url.URL) bool {
	other, err := baseURL(raw)
	return err == nil && strings.EqualFold(other.String(), u.String())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readPEM reads certificates; a file without any is Invalid.
func readPEM(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Precondition, "FILE_UNREADABLE", "the file of certificates cannot be read: %w", err)
	}
	if !strings.Contains(string(text), "-----BEGIN CERTIFICATE-----") {
		return nil, errs.New(errs.Invalid, "NOT_PEM", "%s holds no PEM certificate", path)
	}
	return text, nil
}

// writePrivate replaces path with text in one step; nobody but the owner can read it at any moment.
func writePrivate(path string, text []byte) error { return writeFile(path, text, 0o600) }

func writeFile(path string, text []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // made with 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
