// Package dnspeer asks the dns service.
package dnspeer

import (
	"context"

	"google.golang.org/grpc"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	"github.com/certwright/certwright/services/challenges/internal/app"
)

// Peer asks over a connection that carries this service's own identity.
type Peer struct{ api dnsv1.DNSServiceClient }

// New makes a Peer.
func New(conn grpc.ClientConnInterface) *Peer { return &Peer{api: dnsv1.NewDNSServiceClient(conn)} }

// Resolve implements app.DNS.
func (p *Peer) Resolve(ctx context.Context, ask app.Ask) (app.Account, error) {
	res, err := p.api.ResolveDNSAccount(ctx, &dnsv1.ResolveDNSAccountRequest{Name: ask.Name, Team: ask.Team, AccountId: ask.Only, Record: ask.Record})
	return app.Account{ID: res.GetAccountId(), Zone: res.GetZone(), Explanation: res.GetExplanation(), Any: res.GetAccountId() != "" || res.GetAnyEnabled()}, err
}
