// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package api_test

// Every package of the contracts, so that the tests see all that there is.
import (
	_ "github.com/certwright/certwright/api/certwright/challenges/v1"
	_ "github.com/certwright/certwright/api/certwright/deployer/v1"
	_ "github.com/certwright/certwright/api/certwright/dns/v1"
	_ "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	_ "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	_ "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	_ "github.com/certwright/certwright/api/certwright/events/dns/v1"
	_ "github.com/certwright/certwright/api/certwright/events/key/v1"
	_ "github.com/certwright/certwright/api/certwright/events/order/v1"
	_ "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	_ "github.com/certwright/certwright/api/certwright/events/revocation/v1"
	_ "github.com/certwright/certwright/api/certwright/identity/v1"
	_ "github.com/certwright/certwright/api/certwright/inventory/v1"
	_ "github.com/certwright/certwright/api/certwright/keys/v1"
	_ "github.com/certwright/certwright/api/certwright/notifications/v1"
	_ "github.com/certwright/certwright/api/certwright/options/v1"
	_ "github.com/certwright/certwright/api/certwright/orders/v1"
	_ "github.com/certwright/certwright/api/certwright/renewals/v1"
	_ "github.com/certwright/certwright/api/certwright/types/v1"
)
