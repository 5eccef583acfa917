package servicetest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	certificatev1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/testkit/servicetest"
)

// names answers who calls, or what its peer answers.
type names struct {
	identityv1.UnimplementedIdentityServiceServer
	name string
	peer identityv1.IdentityServiceClient
}

func (n *names) Authenticate(ctx context.Context, r *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	if r.GetToken() == "peer" {
		return n.peer.Authenticate(ctx, &identityv1.AuthenticateRequest{})
	}
	p, _ := authz.FromContext(ctx)
	return &identityv1.AuthenticateResponse{Token: &identityv1.Token{Id: n.name + p.Subject}}, nil
}

func TestAServiceIsCalledCallsAndHears(t *testing.T) {
	n := servicetest.New(t)
	n.Play("identity", &identityv1.IdentityService_ServiceDesc, &names{name: "played"})
	p := n.Platform("gateway", authz.Principal{Subject: "user:ann"})
	identityv1.RegisterIdentityServiceServer(p.Server, &names{peer: identityv1.NewIdentityServiceClient(p.Peer("identity"))})
	heard := make(chan bus.Event, 1)
	require.NoError(t, p.Bus.Consume(bus.Consumer{Name: "gateway-facts", Handle: func(_ context.Context, e bus.Event) error { heard <- e; return nil }}))
	testkit.Run(t, p.Serve)

	client := identityv1.NewIdentityServiceClient(n.Conn("gateway"))
	for token, want := range map[string]string{"own": "user:ann", "peer": "played"} {
		answer, err := client.Authenticate(t.Context(), &identityv1.AuthenticateRequest{Token: token})
		require.NoError(t, err)
		require.Equal(t, want, answer.GetToken().GetId())
	}
	require.NoError(t, n.Bus("inventory").Publish(t.Context(), testkit.Event(t, &certificatev1.Deleted{CertificateId: "crt_1"}, bus.Event{
		ID: "x", Source: "inventory", Subject: "crt_1", Time: time.Now(),
	}).Entry()))
	select {
	case e := <-heard:
		require.Equal(t, "certificate.deleted", e.Type)
	case <-time.After(testkit.Deadline):
		t.Fatal("nothing was heard")
	}
}
