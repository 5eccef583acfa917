package ca

import (
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/stretchr/testify/require"
)

func TestASerialWithItsHighestBitSetIsFoundByItsDERForm(t *testing.T) {
	store := db.NewMemoryStore()
	cert := &x509.Certificate{SerialNumber: big.NewInt(0x80ff), AuthorityKeyId: []byte{1}}
	o := &core.Order{
		Order: acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: "a.test"}}}, ID: "one", AccountID: "me",
		CertificateObject: &core.Certificate{ID: "80ff", Cert: cert},
	}
	require.NoError(t, store.AddOrderByIssuedSerial(o))
	require.Equal(t, "0080ff", hexOfCertID(CertID(cert)))
	_, err := store.GetOrderByIssuedSerial("0080ff")
	require.Error(t, err, "Pebble as it is")

	aliasLeadingZero(store, o)
	found, err := store.GetOrderByIssuedSerial("0080ff")
	require.NoError(t, err)
	require.Equal(t, "me", found.AccountID)
	require.Equal(t, o.Identifiers, found.Identifiers)
	require.NoError(t, store.UpdateReplacedOrder("0080ff", true))
	require.True(t, replaced(store, "0080ff"))
}
