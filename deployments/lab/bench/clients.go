package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/http01"
	"github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/registration"

	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/shared/clock"
)

const (
	inARow = 5
	atOnce = 20
)

// Clients measures what people use otherwise: certbot, and the library's own client as a small program, each certificate by a process of
// its own that answers http-01 on an address of its own, with the platform beside them.
func (b *Bench) Clients(ctx context.Context, w io.Writer) error {
	dir, remove, err := platform.Free()
	if err != nil {
		return err
	}
	defer remove()
	roots := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(roots, b.CA.TLSRootPEM(), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "| client | one after another, median of %d | %d at once, until all are there |\n|---|---|---|\n", inARow, atOnce)
	certbot := func(ctx context.Context, name, host string) *exec.Cmd {
		at := filepath.Join(dir, name)
		cmd := exec.CommandContext(ctx, "certbot", "certonly", "--standalone", "--non-interactive", "--agree-tos", "--register-unsafely-without-email", //nolint:gosec // the lab's own names
			"--server", b.CA.DirectoryURL(), "--config-dir", at, "--work-dir", at, "--logs-dir", at, "--key-type", "ecdsa",
			"--http-01-port", strconv.Itoa(b.HTTP01Port), "--http-01-address", host, "-d", name)
		cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+roots)
		return cmd
	}
	library := func(ctx context.Context, name, host string) *exec.Cmd {
		return exec.CommandContext(ctx, self, "client", "-directory", b.CA.DirectoryURL(), "-listen", net.JoinHostPort(host, strconv.Itoa(b.HTTP01Port)), //nolint:gosec // itself
			"-out", filepath.Join(dir, name+".pem"), "-roots", roots, name)
	}
	for _, c := range []struct {
		title, program string
		cmd            func(ctx context.Context, name, host string) *exec.Cmd
	}{
		{"certbot", "certbot", certbot},
		{"a small program on the library's high-level client", self, library},
	} {
		if _, err := exec.LookPath(c.program); err != nil {
			_, _ = fmt.Fprintf(w, "| %s | not available | not available |\n", c.title)
			continue
		}
		err := b.race(w, c.title, func(n int) error {
			host := fmt.Sprintf("127.0.1.%d", n+1)
			cmd := c.cmd(ctx, b.Name(host), host)
			if text, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", c.title, err, text)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return b.race(w, "Certwright, running, until certificate.issued was told", func(int) error {
		one, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return b.ByPlatform(one, b.Name(""))
	})
}

func (b *Bench) race(w io.Writer, title string, obtain func(n int) error) error {
	clk := clock.System()
	var took []time.Duration
	for range inARow {
		from := clk.Now()
		if err := obtain(0); err != nil {
			return err
		}
		took = append(took, clk.Now().Sub(from))
	}
	slices.Sort(took)
	from := clk.Now()
	failed := make([]error, atOnce)
	var wg sync.WaitGroup
	for n := range atOnce {
		wg.Go(func() { failed[n] = obtain(n) })
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "| %s | %s | %s |\n", title, ms(took[len(took)/2]), ms(clk.Now().Sub(from)))
	return nil
}

// ClientMain gets one certificate by the library's high-level client, as its own command does: a new account, one order, two files.
func ClientMain(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	directory := flags.String("directory", "", "URL of the CA's directory")
	listen := flags.String("listen", "", "where http-01 is answered")
	out := flags.String("out", "", "file of the chain; the key goes beside it")
	roots := flags.String("roots", "", "PEM file of the roots of the CA's endpoint")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.Setenv("LEGO_CA_CERTIFICATES", *roots); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	who := &person{key: key}
	config := lego.NewConfig(who)
	config.CADirURL, config.Certificate.KeyType = *directory, certcrypto.EC256
	c, err := lego.NewClient(config)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(*listen)
	if err != nil {
		return err
	}
	if err := c.Challenge.SetHTTP01Provider(http01.NewProviderServer(host, port)); err != nil {
		return err
	}
	if who.registration, err = c.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		return err
	}
	got, err := c.Certificate.Obtain(certificate.ObtainRequest{Domains: flags.Args(), Bundle: true})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(*out, got.Certificate, 0o600), os.WriteFile(*out+".key", got.PrivateKey, 0o600))
}

// person is an account holder as the library wants one.
type person struct {
	key          crypto.PrivateKey
	registration *registration.Resource
}

func (*person) GetEmail() string                          { return "" }
func (p *person) GetRegistration() *registration.Resource { return p.registration }
func (p *person) GetPrivateKey() crypto.PrivateKey        { return p.key }
