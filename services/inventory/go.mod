module github.com/certwright/certwright/services/inventory

go 1.26

require (
	github.com/certwright/certwright/api v0.0.0
	github.com/certwright/certwright/shared v0.0.0
	github.com/google/go-cmp v0.7.0
	github.com/oklog/ulid/v2 v2.1.2
	github.com/stretchr/testify v1.12.1
	go.opentelemetry.io/otel v1.47.0
	golang.org/x/net v0.62.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	pgregory.net/rapid v1.3.0
)

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/shared => ../../shared
)
