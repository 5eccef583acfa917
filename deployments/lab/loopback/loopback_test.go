package loopback_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/loopback"
)

func TestOnlyLoopbackAddressesAreListenedOn(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost:0", "127.0.0.1"} {
		_, err := loopback.Listen(addr)
		require.Error(t, err, addr)
	}
	l, err := loopback.Listen("")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	_, err = loopback.Listen(l.Addr().String())
	require.ErrorContains(t, err, "address already in use")
}

func TestTCPAndUDPShareOnePort(t *testing.T) {
	l, p, err := loopback.ListenBoth("")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	defer func() { require.NoError(t, p.Close()) }()
	require.Equal(t, loopback.PortOf(l.Addr()), loopback.PortOf(p.LocalAddr()))
	port, err := loopback.Port()
	require.NoError(t, err)
	require.NotEqual(t, port, loopback.PortOf(l.Addr()))
}
