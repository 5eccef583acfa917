// Package setup makes the material of an installation whose services are processes of their own: an internal certification authority, a certificate and
// a NATS user for each service, the keys that people's identities are signed with, and the configuration that names them. It never overwrites key
// material or a configuration, so that it can be run again to add what is missing.
package setup

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Forms of an installation.
const (
	// FormContainers is what compose.yaml starts: each service in a container that is known by its service's name.
	FormContainers = "containers"
	// FormHosts is programs on hosts, by default all on this one, on loopback addresses.
	FormHosts = "hosts"
)

// Ports. On one host every service has its own, by its place in the list of services.
const (
	grpcPort       = 7443
	healthPort     = 9090
	firstHostPort  = 7441
	firstHostCheck = 9441
	natsPort       = 4222
)

// containerUser is the user and group of the images.
const containerUser = "65532:65532"

// Options of one run.
type Options struct {
	Dir  string
	Form string
	// Services are the services to make material for; empty for all.
	Services []string
	// Hosts are addresses, host or host:port, of services and of "nats", by name.
	Hosts map[string]string
	// MongoURI is that of an existing MongoDB. Empty: in containers the one that comes with them, on hosts a SQLite file for each service.
	MongoURI secret.Value
	// SQLite wants SQLite files in containers too.
	SQLite bool
	// DataDir is where services store; empty for the form's own.
	DataDir string
	// Owner is "uid:gid" of the files, used when root runs this; empty: in containers that of the images, on hosts root.
	Owner string
	// Renew makes the certificates anew that have used up two thirds of their life.
	Renew bool
	Now   time.Time
}

// Result is what one run did.
type Result struct {
	// Made, Kept and Renewed are files, relative to the directory.
	Made, Kept, Renewed []string
	// Ends is when the first of the certificates ends.
	Ends time.Time
	// Warnings are sentences for the operator.
	Warnings []string
}

// plan is the checked form of Options.
type plan struct {
	Options
	uid, gid int
	address  map[string]string // host:port by service, and of NATS
	listen   map[string]string
	check    map[string]string
}

func (o Options) check() (*plan, error) {
	wrong := errs.New(errs.Invalid, "INIT_INVALID", "the installation cannot be made like this")
	p := &plan{Options: o, uid: -1, gid: -1, address: map[string]string{}, listen: map[string]string{}, check: map[string]string{}}
	if o.Form != FormContainers && o.Form != FormHosts {
		wrong = wrong.WithField("form", "is %q; allowed are %s and %s", o.Form, FormContainers, FormHosts)
	}
	if p.Dir == "" {
		wrong = wrong.WithField("dir", "is empty; give the directory to put everything in")
	} else if dir, err := filepath.Abs(p.Dir); err == nil {
		p.Dir = dir
	}
	known := names()
	if len(p.Services) == 0 || slices.Equal(p.Services, []string{"all"}) {
		p.Services = known
	}
	for _, s := range p.Services {
		if !slices.Contains(known, s) {
			wrong = wrong.WithField("services", "there is no service %q; there are %s", s, strings.Join(known, ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Hosts)) {
		if name != bus && !slices.Contains(known, name) {
			wrong = wrong.WithField("hosts", "there is no service %q; there are %s, and %s", name, strings.Join(known, ", "), bus)
		}
		if o.Hosts[name] == "" {
			wrong = wrong.WithField("hosts", "the address of %s is empty; give host or host:port", name)
		}
	}
	if p.Form == FormContainers && p.Owner == "" && os.Geteuid() == 0 {
		p.Owner = containerUser
	}
	if p.Owner != "" {
		uid, gid, ok := strings.Cut(p.Owner, ":")
		var errUID, errGID error
		p.uid, errUID = strconv.Atoi(uid)
		p.gid, errGID = strconv.Atoi(gid)
		if !ok || errUID != nil || errGID != nil {
			wrong = wrong.WithField("owner", "is %q; give user and group as numbers, such as %s", p.Owner, containerUser)
		}
	}
	if p.DataDir == "" {
		p.DataDir = "/var/lib/certwright"
	}
	if len(wrong.Fields) > 0 {
		return nil, wrong
	}
	p.place(known)
	return p, nil
}

// place gives every service and NATS its addresses.
func (p *plan) place(known []string) {
	for i, name := range append(slices.Clone(known), bus) {
		host, port, check := name, grpcPort, ":"+strconv.Itoa(healthPort)
		if name == bus {
			port = natsPort
		}
		if p.Form == FormHosts {
			host, check = "127.0.0.1", net.JoinHostPort("127.0.0.1", strconv.Itoa(firstHostCheck+i))
			if name != bus {
				port = firstHostPort + i
			}
		}
		number := strconv.Itoa(port)
		if given := p.Hosts[name]; given != "" {
			if h, n, err := net.SplitHostPort(given); err == nil {
				host, number = h, n
			} else {
				host = strings.Trim(given, "[]")
			}
		}
		p.address[name] = net.JoinHostPort(host, number)
		p.listen[name] = ":" + number
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() { // never wider than it has to be
			p.listen[name] = p.address[name]
		}
		p.check[name] = check
	}
}

// Run makes what is missing.
func Run(o Options) (*Result, error) {
	p, err := o.check()
	if err != nil {
		return nil, err
	}
	w := &writer{dir: p.Dir, uid: p.uid, gid: p.gid}
	if err := w.top(); err != nil {
		return nil, err
	}
	ca, err := openCA(w, p.Now)
	if err != nil {
		return nil, err
	}
	public, err := principal(w)
	if err != nil {
		return nil, err
	}
	for _, name := range append(slices.Clone(p.Services), bus) {
		if err := p.party(w, ca, name, public); err != nil {
			return nil, err
		}
	}
	if err := p.natsFiles(w); err != nil {
		return nil, err
	}
	if p.Form == FormContainers {
		if err := p.composeFiles(w); err != nil {
			return nil, err
		}
	}
	if life := ca.ends.Sub(p.Now); life < caLife/3 {
		w.warn("the internal CA ends on %s; a new one takes a new installation directory, and all services restarted with it", ca.ends.Format(time.DateOnly))
	}
	return &w.Result, nil
}

// party makes the directory of one service, or of NATS.
func (p *plan) party(w *writer, ca *authority, name string, public []byte) error {
	if err := w.directory(name, true); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(p.address[name])
	if err != nil {
		return fmt.Errorf("address of %s: %w", name, err)
	}
	if err := ca.certify(w, name, host, p.Renew); err != nil {
		return err
	}
	trust := filepath.Join(name, "ca.pem")
	if err := w.keep(trust, func() ([]byte, error) { return ca.pem, nil }); err != nil {
		return err
	}
	if held, err := w.read(trust); err != nil || !bytes.Equal(held, ca.pem) {
		return errs.New(errs.Precondition, "INIT_KEY_MISMATCH", "%s is not the CA in %s; put the right ca/ca.pem back, or use another directory for a new installation", trust, caDir)
	}
	if name == bus {
		return nil
	}
	if err := w.keep(filepath.Join(name, "principal.pub"), func() ([]byte, error) { return public, nil }); err != nil {
		return err
	}
	if err := user(w, name); err != nil {
		return err
	}
	uri, err := p.mongoURI(w, name)
	if err != nil {
		return err
	}
	return w.keep(filepath.Join(name, "config.yaml"), func() ([]byte, error) { return p.config(name, uri) })
}
