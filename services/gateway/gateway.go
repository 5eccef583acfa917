// Package gateway is the edge: REST over the services' contracts (grpc-gateway), the live feed of facts, OpenAPI, health and metrics. It finds out who
// calls and passes them on as a signed principal; the owner of each call decides. It keeps no state, and must never decide by itself what somebody may do
// with a certificate.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/certwright/certwright/services/gateway/internal/edgecert"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/service"
)

const (
	headerTimeout  = 10 * time.Second
	requestTimeout = 60 * time.Second // for reading a request, and for writing an answer; the feed has its own
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	stopTimeout    = 10 * time.Second
	refreshEvery   = time.Minute
)

// Run runs the edge until ctx ends. Invalid CONFIG_INVALID; Precondition EDGE_FILES_UNUSABLE; Unavailable EDGE_ADDRESS_IN_USE when it cannot listen.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	e, err := newEdge(ctx, p, cfg)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, p, cfg)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: e, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(p.Logger.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	server.RegisterOnShutdown(func() { close(e.feed.ending) })
	for _, l := range listeners {
		p.Logger.InfoContext(ctx, "the edge listens", "url", l.url)
		p.Go("edge "+l.url, func(ctx context.Context) error { return serveOn(ctx, server, l.Listener) })
	}
	p.Go("edge stop", func(ctx context.Context) error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := server.Shutdown(last); err != nil {
			return errors.Join(err, server.Close())
		}
		return nil
	})
	return p.Serve(ctx)
}

func serveOn(ctx context.Context, server *http.Server, l net.Listener) error {
	err := server.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-ctx.Done()
		return nil
	}
	return err
}

type listener struct {
	net.Listener
	url string
}

// listen opens the addresses, so that what is wrong with them stops the start.
func listen(ctx context.Context, p *service.Platform, cfg Config) (out []listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range out {
				_ = l.Close()
			}
		}
	}()
	open := func(key, address string) (net.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, errs.New(errs.Unavailable, "EDGE_ADDRESS_IN_USE", "the edge cannot listen on %s: %w; stop what listens there, or set gateway.%s to another address", address, err, key)
		}
		return l, nil
	}
	if cfg.HTTPS != "" || cfg.Listener != nil {
		source, err := certificate(ctx, p, cfg)
		if err != nil {
			return out, err
		}
		l := cfg.Listener
		if l == nil {
			if l, err = open("https", cfg.HTTPS); err != nil {
				return out, err
			}
		}
		l = tls.NewListener(l, &tls.Config{GetCertificate: source.Get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
		out = append(out, listener{l, cfg.URL()})
		p.Go("edge certificate", func(ctx context.Context) error { return refresh(ctx, p, source) })
	}
	if cfg.HTTP != "" {
		l, err := open("http", cfg.HTTP)
		if err != nil {
			return out, err
		}
		out = append(out, listener{l, "http://" + l.Addr().String()})
	}
	return out, nil
}

func certificate(ctx context.Context, p *service.Platform, cfg Config) (edgecert.Source, error) {
	if cfg.CertFile != "" {
		return edgecert.OpenFiles(ctx, cfg.CertFile, cfg.KeyFile, p.Logger)
	}
	hosts := cfg.Hosts
	if len(hosts) == 0 {
		hosts = Defaults().Hosts
	}
	return edgecert.OpenLocal(ctx, p.DataDir, hosts, p.Clock, p.Logger)
}

func refresh(ctx context.Context, p *service.Platform, source edgecert.Source) error {
	for p.Clock.Sleep(ctx, refreshEvery) == nil {
		if err := source.Refresh(ctx); err != nil {
			p.Logger.ErrorContext(ctx, "the edge's certificate could not be renewed; the one of before is shown", "error", err)
		}
	}
	return nil
}
