// Command formcheck takes a certificate through its life on a platform that runs elsewhere, for example in containers: it brings the ACME CA and its
// DNS, and checks each step from outside. It has to run where the orders service reaches its loopback addresses, such as in that container's network.
// It ends with status 0 only if every step was seen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/many"
	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
)

func main() {
	edge := flag.String("edge", "https://gateway:8443", "base URL of the edge")
	roots := flag.String("roots", "/gateway/edge-ca.pem", "file with the CA of the edge's certificate")
	token := flag.String("token", "/identity/admin.token", "file with an administrator's token")
	http01 := flag.String("http01", "challenges:5002", "where the http-01 responder is reached")
	deployed := flag.String("deployed", "/deployed", "directory that the deployer's host \"local\" may write, seen under the same path here")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := run(ctx, *edge, *roots, *token, *http01, *deployed); err != nil {
		fmt.Fprintln(os.Stderr, "formcheck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, edge, roots, token, http01, deployed string) error {
	trust, err := os.ReadFile(roots)
	if err != nil {
		return err
	}
	c, err := client.New(edge, trust, token)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "formcheck-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := stage.Start(ctx, stage.Options{Dir: dir, CA: ca.Options{Strict: true, NonceReject: 20}, Without: true})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	s.Platform = &platform.Platform{Client: c}
	if err := forward(ctx, fmt.Sprintf("127.0.0.1:%d", s.HTTP01Port), http01); err != nil {
		return err
	}
	chain := filepath.Join(deployed, "fullchain.pem")
	target := &deployerv1.Target{}
	if err := s.Call(ctx, http.MethodPost, "/v1/targets", &deployerv1.CreateTargetRequest{Target: &deployerv1.Target{
		DisplayName: "files of " + filepath.Base(dir), Kind: "file", File: &deployerv1.FileTarget{Host: "local", FullchainPath: chain, KeyPath: filepath.Join(deployed, "key.pem")},
	}}, target); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	began := time.Now()
	run := began.UTC().Format("2006-01-02 15:04:05") // each run has an issuer of its own
	say := func(format string, args ...any) {
		fmt.Printf("%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	return many.Journey(ctx, s, "lab CA of "+run, target.GetId(), func(ctx context.Context, fingerprint string) error {
		for {
			if text, err := os.ReadFile(chain); err == nil && pki.FingerprintPEM(text) == fingerprint {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s never had the certificate %s: %w", chain, fingerprint, ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}, say)
}

// forward passes connections on, so that the CA, which asks on loopback, reaches the responder in another container.
func forward(ctx context.Context, from, to string) error {
	l, err := net.Listen("tcp", from)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go pass(ctx, in, to)
			}
		}
	}()
	return nil
}

func pass(ctx context.Context, in net.Conn, to string) {
	defer in.Close()
	out, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
}
