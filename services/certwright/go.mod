module github.com/certwright/certwright/services/certwright

go 1.26

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/services/challenges => ../../services/challenges
	github.com/certwright/certwright/services/deployer => ../../services/deployer
	github.com/certwright/certwright/services/dns => ../../services/dns
	github.com/certwright/certwright/services/gateway => ../../services/gateway
	github.com/certwright/certwright/services/identity => ../../services/identity
	github.com/certwright/certwright/services/inventory => ../../services/inventory
	github.com/certwright/certwright/services/keys => ../../services/keys
	github.com/certwright/certwright/services/notifications => ../../services/notifications
	github.com/certwright/certwright/services/orders => ../../services/orders
	github.com/certwright/certwright/services/renewals => ../../services/renewals
	github.com/certwright/certwright/shared => ../../shared
)

require (
	github.com/certwright/certwright/api v0.0.0
	github.com/certwright/certwright/services/challenges v0.0.0
	github.com/certwright/certwright/services/deployer v0.0.0
	github.com/certwright/certwright/services/dns v0.0.0
	github.com/certwright/certwright/services/gateway v0.0.0
	github.com/certwright/certwright/services/identity v0.0.0
	github.com/certwright/certwright/services/inventory v0.0.0
	github.com/certwright/certwright/services/keys v0.0.0
	github.com/certwright/certwright/services/notifications v0.0.0
	github.com/certwright/certwright/services/orders v0.0.0
	github.com/certwright/certwright/services/renewals v0.0.0
	github.com/certwright/certwright/shared v0.0.0
	github.com/spf13/cobra v1.10.2
	golang.org/x/term v0.47.0
	sigs.k8s.io/yaml v1.6.0
)
