// Package dnspeer asks the dns service.
package dnspeer

import (
	"context"

	"google.golang.org/grpc"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
)

// Peer asks over a connection that carries this service's own identity.
type Peer struct{ api dnsv1.DNSServiceClient }

// New makes a Peer.
func New(conn grpc.ClientConnInterface) *Peer { return &Peer{api: dnsv1.NewDNSServiceClient(conn)} }

// Resolve implements app.DNS.
func (p *Peer) Resolve(ctx context.Context, name, team string) (account, explanation string, err error) {
	res, err := p.api.ResolveDNSAccount(ctx, &dnsv1.ResolveDNSAccountRequest{Name: name, Team: team})
	return res.GetAccountId(), res.GetExplanation(), err
}
