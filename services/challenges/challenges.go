// Package challenges is the service that proves control of names: it picks who answers a challenge, has the answer placed, sees it where the
// CA will look, and cleans up. It never talks to a CA or a DNS provider.
package challenges

import (
	"context"
	"net"
	"time"

	"go.opentelemetry.io/otel/metric"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	"github.com/certwright/certwright/services/challenges/internal/adapters/alpn"
	"github.com/certwright/certwright/services/challenges/internal/adapters/dnspeer"
	"github.com/certwright/certwright/services/challenges/internal/adapters/look"
	"github.com/certwright/certwright/services/challenges/internal/adapters/responder"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/services/challenges/internal/transport/consumer"
	grpctransport "github.com/certwright/certwright/services/challenges/internal/transport/grpc"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run runs the service until ctx ends or a part of it fails.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	coll, err := outbox.Open[domain.Challenge](ctx, p.Outbox, app.ChallengesSpec())
	if err != nil {
		return err
	}
	orders, err := outbox.Open[app.ClosedOrder](ctx, p.Outbox, app.OrdersSpec())
	if err != nil {
		return err
	}
	routes, err := outbox.Open[domain.Route](ctx, p.Outbox, app.RoutesSpec())
	if err != nil {
		return err
	}
	requests, err := once.Open(ctx, p.Outbox)
	if err != nil {
		return err
	}
	eyes := &look.Eyes{
		Resolvers: cfg.DNS.Resolvers, Port: cfg.HTTP01.CheckPort, TLSPort: cfg.TLSALPN01.CheckPort, DNSPort: cfg.DNS.CheckPort, Timeout: cfg.Timeout, Hosts: look.HostsBy(cfg.DNS.Resolvers),
	}
	if len(eyes.Resolvers) == 0 {
		eyes.Resolvers = look.SystemResolvers("/etc/resolv.conf")
	}
	a := &app.App{
		Challenges: coll, Orders: orders, Routes: routes, Requests: requests, DNS: dnspeer.New(p.Peer("dns")), Eyes: eyes, Clock: p.Clock, Logger: p.Logger,
		Responders: domain.Responders{HTTP: cfg.HTTP01Addr != "", TLS: cfg.TLSALPN01.Listen != ""}, VerifyWait: cfg.VerifyWait,
	}
	if p.Meter != nil {
		if a.Closed, err = p.Meter.Int64Counter("certwright_challenges_closed_total", metric.WithDescription("Closed challenges by type, solver and outcome")); err != nil {
			return err
		}
	}
	if a.Responders.HTTP {
		l, err := listen(ctx, "http-01", "http01.listen", cfg.HTTP01Addr)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		if cfg.HTTP01.SelfCheck == selfCheckLoopback {
			eyes.Own = loopback(l.Addr())
		}
		p.Logger.InfoContext(ctx, "the http-01 responder listens", "address", l.Addr().String())
		p.Go("http-01 responder", func(ctx context.Context) error {
			return responder.Serve(ctx, l, responder.Handler(a.Answer, p.Logger))
		})
	}
	if a.Responders.TLS {
		l, err := listen(ctx, "tls-alpn-01", "tlsalpn01.listen", cfg.TLSALPN01.Listen)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		if cfg.TLSALPN01.SelfCheck == selfCheckLoopback {
			eyes.OwnTLS = loopback(l.Addr())
		}
		p.Logger.InfoContext(ctx, "the tls-alpn-01 responder listens", "address", l.Addr().String())
		r := &alpn.Responder{Answers: a.AnswerTLS, Clock: p.Clock, Logger: p.Logger}
		p.Go("tls-alpn-01 responder", func(ctx context.Context) error { return r.Serve(ctx, l) })
	}
	challengesv1.RegisterChallengesServiceServer(p.Server, &grpctransport.Server{App: a})
	if err := p.Bus.Consume(consumer.Orders(a)); err != nil {
		return err
	}
	if err := p.Bus.Consume(consumer.Records(a)); err != nil {
		return err
	}
	w := worker.New(worker.Config[domain.Challenge]{
		Name: "challenges", Coll: coll, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter,
		Step: a.Step, Concurrency: cfg.Workers,
	})
	p.Go("challenges", w.Run)
	p.Every("janitor", time.Hour, a.Tidy)
	return p.Serve(ctx)
}

func listen(ctx context.Context, typ, setting, addr string) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, errs.New(errs.Precondition, "RESPONDER_NOT_LISTENING",
			"the %s responder cannot listen on %s: %w; free the port, or set %s of the challenges service to another address, or to nothing to do without", typ, addr, err, setting)
	}
	return l, nil
}

// loopback is where this process reaches its own listener.
func loopback(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
