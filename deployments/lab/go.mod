module github.com/certwright/certwright/deployments/lab

go 1.26

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/shared => ../../shared
	github.com/certwright/certwright/services/gateway => ../../services/gateway
	github.com/certwright/certwright/services/identity => ../../services/identity
	github.com/certwright/certwright/services/inventory => ../../services/inventory
	github.com/certwright/certwright/services/keys => ../../services/keys
	github.com/certwright/certwright/services/orders => ../../services/orders
	github.com/certwright/certwright/services/challenges => ../../services/challenges
	github.com/certwright/certwright/services/dns => ../../services/dns
	github.com/certwright/certwright/services/renewals => ../../services/renewals
	github.com/certwright/certwright/services/deployer => ../../services/deployer
	github.com/certwright/certwright/services/notifications => ../../services/notifications
	github.com/certwright/certwright/services/certwright => ../../services/certwright
)

require (
	github.com/certwright/certwright/api v0.0.0
	github.com/certwright/certwright/shared v0.0.0
	github.com/certwright/certwright/services/gateway v0.0.0
	github.com/certwright/certwright/services/identity v0.0.0
	github.com/certwright/certwright/services/inventory v0.0.0
	github.com/certwright/certwright/services/keys v0.0.0
	github.com/certwright/certwright/services/orders v0.0.0
	github.com/certwright/certwright/services/challenges v0.0.0
	github.com/certwright/certwright/services/dns v0.0.0
	github.com/certwright/certwright/services/renewals v0.0.0
	github.com/certwright/certwright/services/deployer v0.0.0
	github.com/certwright/certwright/services/notifications v0.0.0
	github.com/certwright/certwright/services/certwright v0.0.0
)

require (
	github.com/go-acme/lego/v4 v4.35.2
	github.com/letsencrypt/pebble/v2 v2.10.1
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/emersion/go-sasl v0.0.0-20241020182733-b788ff22d5a6
	github.com/emersion/go-smtp v0.25.1
	github.com/go-jose/go-jose/v4 v4.1.4
	github.com/letsencrypt/challtestsrv v1.4.2 // indirect
	github.com/miekg/dns v1.1.73
	github.com/nats-io/nats-server/v2 v2.15.2
	github.com/nats-io/nats.go v1.55.0
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
