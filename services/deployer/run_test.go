package deployer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/deployer"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/testkit/servicetest"
)

// siblings are inventory and keys as far as deployer asks them.
type siblings struct {
	inventoryv1.UnimplementedInventoryServiceServer
	keysv1.UnimplementedKeysServiceServer
	status *inventoryv1.VersionStatus
	key    []byte
}

func (s *siblings) GetCertificate(_ context.Context, r *inventoryv1.GetCertificateRequest) (*inventoryv1.Certificate, error) {
	if r.GetId() != "crt_1" {
		return nil, errs.New(errs.NotFound, "", "no such certificate")
	}
	return &inventoryv1.Certificate{Id: "crt_1", Team: "default"}, nil
}

func (s *siblings) GetVersionStatus(context.Context, *inventoryv1.GetVersionStatusRequest) (*inventoryv1.VersionStatus, error) {
	return s.status, nil
}

func (s *siblings) ListChanges(context.Context, *inventoryv1.ListChangesRequest) (*inventoryv1.ListChangesResponse, error) {
	return &inventoryv1.ListChangesResponse{}, nil
}

func (s *siblings) Release(_ context.Context, r *keysv1.ReleaseRequest) (*keysv1.ReleaseResponse, error) {
	sealed, err := seal.SealTo(r.GetReceiverPublicKey(), s.key, []byte("release:"+r.GetDeploymentId()))
	return &keysv1.ReleaseResponse{SealedPkcs8: sealed}, err
}

func TestTheServiceRunsOnARealBusAndStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	sum := sha256.Sum256(der)
	facts := &typesv1.VersionFacts{VersionId: "ver_1", Number: 1, KeyId: "key_1", Names: []string{"a.example"}, FingerprintSha256: hex.EncodeToString(sum[:])}
	sib := &siblings{key: pkcs8, status: &inventoryv1.VersionStatus{Version: &inventoryv1.Version{State: "current", Facts: facts}, ChainDer: [][]byte{der}}}

	dir := t.TempDir()
	site, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(dir+"/full.pem", dir+"/key.pem")
		return &pair, err
	}})
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := site.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(ctx)
			_ = conn.Close()
		}
	}()
	defer func() { _ = site.Close(); <-served }()

	network := servicetest.New(t)
	network.Play("inventory", &inventoryv1.InventoryService_ServiceDesc, sib)
	network.Play("keys", &keysv1.KeysService_ServiceDesc, sib)
	p := network.Platform("deployer", authz.Principal{Subject: "token:tok_1", Permissions: []string{"*"}})
	cfg := deployer.Defaults()
	cfg.Hosts = map[string]deployer.Host{"local": {AllowedRoots: []string{dir}}}
	testkit.Run(t, func(ctx context.Context) error { return deployer.Run(ctx, p, cfg) })

	client := deployerv1.NewDeployerServiceClient(network.Conn("deployer"))
	want := &deployerv1.CreateTargetRequest{RequestId: "r1", Target: &deployerv1.Target{
		DisplayName: "site", ProbeAddress: site.Addr().String(), File: &deployerv1.FileTarget{FullchainPath: dir + "/full.pem", KeyPath: dir + "/key.pem"},
	}}
	target, err := client.CreateTarget(ctx, want)
	require.NoError(t, err)
	again, err := client.CreateTarget(ctx, want)
	require.NoError(t, err)
	require.Equal(t, target.GetId(), again.GetId(), "the same request makes one target")
	_, err = client.EnsureBinding(ctx, &deployerv1.EnsureBindingRequest{CertificateId: "crt_9", TargetId: target.GetId(), Team: "default"})
	require.Equal(t, "CERTIFICATE_NOT_FOUND", errs.ReasonOf(err), "a person's word for a certificate is not taken")
	binding, err := client.CreateBinding(ctx, &deployerv1.CreateBindingRequest{CertificateId: "crt_1", TargetId: target.GetId()})
	require.NoError(t, err)

	added := &certificateeventsv1.VersionAdded{CertificateId: "crt_1", Version: facts, State: "current"}
	require.NoError(t, p.Bus.Publish(ctx, testkit.Event(t, added, bus.Event{
		ID: "x-e-1-0", Source: "inventory", Subject: "crt_1", Time: time.Now(), Revision: 1, Epoch: "e", Team: "default",
	}).Entry()))
	testkit.Eventually(t, func() bool {
		list, err := client.ListDeployments(ctx, &deployerv1.ListDeploymentsRequest{Filter: "binding=" + binding.GetId() + " AND state=succeeded"})
		require.NoError(t, err)
		return len(list.GetDeployments()) == 1 && list.GetDeployments()[0].GetServedFingerprintSha256() == facts.GetFingerprintSha256()
	}, "the version is served")
	testkit.Eventually(t, func() bool {
		list, err := client.ListBindings(ctx, &deployerv1.ListBindingsRequest{Filter: "certificate=crt_1"})
		require.NoError(t, err)
		return len(list.GetBindings()) == 1 && list.GetBindings()[0].GetServedVersionId() == "ver_1"
	}, "the binding knows")
	_, err = client.DeleteTarget(ctx, &deployerv1.DeleteTargetRequest{Id: target.GetId()})
	require.Equal(t, "TARGET_BOUND", errs.ReasonOf(err))
	_, err = client.DeleteBinding(ctx, &deployerv1.DeleteBindingRequest{Id: binding.GetId()})
	require.NoError(t, err)
	_, err = client.DeleteTarget(ctx, &deployerv1.DeleteTargetRequest{Id: target.GetId()})
	require.NoError(t, err)
	_, err = client.GetTarget(ctx, &deployerv1.GetTargetRequest{Id: target.GetId()})
	require.Equal(t, "TARGET_NOT_FOUND", errs.ReasonOf(err))
}
