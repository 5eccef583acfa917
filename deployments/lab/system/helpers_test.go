// Package system_test holds the tests of the whole product against real peers.
package system_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/platform"
)

var (
	built     sync.Once
	buildDir  string
	buildPath string
	errBuild  error
)

// binary builds the one-process program, once per run of the tests.
func binary(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
		defer cancel()
		if buildDir, errBuild = os.MkdirTemp("", "certwright-bin-"); errBuild == nil {
			buildPath, errBuild = platform.Build(ctx, buildDir, "github.com/certwright/certwright/services/certwright/cmd/certwright")
		}
	})
	require.NoError(t, errBuild)
	return buildPath
}

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// pendingRequest is a request whose answer a kill may have cut off.
type pendingRequest struct {
	in *inventoryv1.CreateCertificateRequest
}

var (
	pendingMu sync.Mutex
	pending   = map[*crashStage][]pendingRequest{}
)

// askFor requests a certificate. When the answer is lost the request is remembered for repeat.
func (c *crashStage) askFor(ctx context.Context, challenge string, names []string) (string, error) {
	in := &inventoryv1.CreateCertificateRequest{
		RequestId: fmt.Sprintf("round-%d", c.round), DeployTo: []string{c.targets[(c.round-1)%len(c.targets)]},
		Certificate: &inventoryv1.Certificate{Owner: "ops@shop.test", Spec: &typesv1.CertificateSpec{
			Issuer: c.issuer, Names: names, Challenge: &typesv1.ChallengeSpec{Type: challenge},
		}},
	}
	c.intents++
	out := &inventoryv1.Certificate{}
	err := c.Call(ctx, http.MethodPost, "/v1/certificates", in, out)
	if err != nil {
		var refused *client.Error
		if errors.As(err, &refused) && refused.Status < 500 {
			require.NoError(c.t, err)
		}
		pendingMu.Lock()
		pending[c] = append(pending[c], pendingRequest{in})
		pendingMu.Unlock()
	}
	return out.GetId(), err
}

// repeat sends again, with the same requestId, what a kill has cut off.
func (c *crashStage) repeat(ctx context.Context) (ids []string) {
	c.t.Helper()
	pendingMu.Lock()
	again := pending[c]
	delete(pending, c)
	pendingMu.Unlock()
	for _, p := range again {
		out := &inventoryv1.Certificate{}
		labtest.Eventually(ctx, c.t, func() (bool, string) {
			err := c.Call(ctx, http.MethodPost, "/v1/certificates", p.in, out)
			return err == nil, fmt.Sprint(err)
		})
		ids = append(ids, out.GetId())
	}
	return ids
}
