package authz

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// MetadataKey is the gRPC metadata key of the signed principal.
const MetadataKey = "certwright-principal"

// serviceDomain ends the name in the certificate of a service: orders.certwright.
const serviceDomain = ".certwright"

// Call is one decided call, for an audit hook.
type Call struct {
	Principal Principal // zero for nobody
	Method    string    // "/certwright.orders.v1.Orders/RetryOrder"
	Rule      *optionsv1.Rule
	Request   any   // the request message; nil for a stream
	Err       error // why it was refused or failed; nil when it succeeded
	Refused   bool  // true when the handler was not called
}

// Server enforces rules on the calls that a gRPC server gets. Clock and Verifier are required.
type Server struct {
	Verifier *Verifier
	Clock    clock.Clock
	// Audit, when set, is told of each refused call and of each call of a method whose rule says mutating, after it ended. It must not
	// block and must not keep Request, which may hold secrets.
	Audit func(ctx context.Context, c Call)
}

// Unary is the interceptor for unary methods.
func (s *Server) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if exempt(info.FullMethod) {
		return next(ctx, req)
	}
	rule := RuleOf(info.FullMethod)
	c, err := s.admit(ctx, rule)
	if err != nil {
		s.audit(ctx, Call{Principal: c.Principal, Method: info.FullMethod, Rule: rule, Request: req, Err: err, Refused: true})
		return nil, err
	}
	ctx = context.WithValue(ctx, ctxKey{}, c)
	resp, err := next(ctx, req)
	if rule.GetMutating() {
		s.audit(ctx, Call{Principal: c.Principal, Method: info.FullMethod, Rule: rule, Request: req, Err: err})
	}
	return resp, err
}

// Stream is the interceptor for streaming methods. The principal is checked once, when the stream opens.
func (s *Server) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if exempt(info.FullMethod) {
		return next(srv, stream)
	}
	rule := RuleOf(info.FullMethod)
	c, err := s.admit(stream.Context(), rule)
	if err != nil {
		s.audit(stream.Context(), Call{Principal: c.Principal, Method: info.FullMethod, Rule: rule, Err: err, Refused: true})
		return err
	}
	ctx := context.WithValue(stream.Context(), ctxKey{}, c)
	err = next(srv, withContext{stream, ctx})
	if rule.GetMutating() {
		s.audit(ctx, Call{Principal: c.Principal, Method: info.FullMethod, Rule: rule, Err: err})
	}
	return err
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the interface has it as a method
}

func (w withContext) Context() context.Context { return w.ctx }

func (s *Server) audit(ctx context.Context, c Call) {
	if s.Audit != nil {
		s.Audit(ctx, c)
	}
}

// admit finds out who calls, and decides. The caller is returned with a refusal too, when known.
func (s *Server) admit(ctx context.Context, rule *optionsv1.Rule) (caller, error) {
	c, err := s.identify(ctx)
	if err != nil {
		return caller{}, err
	}
	return c, Authorize(c.Principal, rule)
}

// identify takes the signed principal, else the client certificate of the connection; nobody is no error here.
func (s *Server) identify(ctx context.Context) (caller, error) {
	switch tokens := metadata.ValueFromIncomingContext(ctx, MetadataKey); len(tokens) {
	case 0:
		return caller{Principal: fromPeer(ctx)}, nil
	case 1:
		p, err := s.Verifier.Verify(tokens[0], s.Clock.Now())
		return caller{Principal: p, token: tokens[0]}, err
	default:
		return caller{}, errInvalid("there are several")
	}
}

// fromPeer names the service whose verified certificate the other end showed, or nobody. The certificate was verified against the CA
// of the installation by the handshake (rpc.TLS).
func fromPeer(ctx context.Context) Principal {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Principal{}
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.PeerCertificates) == 0 {
		return Principal{}
	}
	cert := info.State.PeerCertificates[0]
	names := cert.DNSNames
	if len(names) == 0 {
		names = []string{cert.Subject.CommonName}
	}
	for _, n := range names {
		if service, ok := strings.CutSuffix(n, serviceDomain); ok && service != "" && !strings.ContainsAny(service, ".*") {
			return ForService(service)
		}
	}
	return Principal{}
}

// Client puts identities on outgoing calls. Clock is required.
type Client struct {
	// Service is the name of the calling service.
	Service string
	// Signer signs what has no token yet: principals put into ctx by NewContext (the gateway), and the service's own identity in one process. Nil in a
	// service of its own, whose own calls are known by their client certificate.
	Signer *Signer
	Clock  clock.Clock
}

// tokenTTL is how long a signed principal is good for: one call and what it calls.
const tokenTTL = 2 * time.Minute

// Unary is the interceptor for unary calls.
func (c *Client) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, err := c.outgoing(ctx)
	if err != nil {
		return err
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// Stream is the interceptor for streams.
func (c *Client) Stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := c.outgoing(ctx)
	if err != nil {
		return nil, err
	}
	return stream(ctx, desc, cc, method, opts...)
}

// outgoing adds the metadata: a person's token as it came, else the person in ctx signed, else the service's own identity. A sibling's identity is
// never passed on: what a service does in answer to another it does as itself, in one process as in many.
func (c *Client) outgoing(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	delete(md, MetadataKey)
	who, _ := ctx.Value(ctxKey{}).(caller)
	if c.Service != "" && (who.IsZero() || who.Service != "") {
		who = caller{Principal: ForService(c.Service)}
	}
	token := who.token
	switch {
	case token != "" || who.IsZero():
	case c.Signer != nil:
		token = c.Signer.Sign(who.Principal, tokenTTL, c.Clock.Now())
	case who.Service == "":
		// Dropping a person's identity here would run their call with the rights of this service.
		return nil, errs.New(errs.Internal, "PRINCIPAL_NOT_SIGNED", "the call is on behalf of %s, but has no token to forward and no key to sign one", who.Subject)
	}
	if token != "" {
		md.Set(MetadataKey, token)
	}
	return metadata.NewOutgoingContext(ctx, md), nil
}
