module github.com/certwright/certwright/services/renewals

go 1.26

require (
	github.com/certwright/certwright/api v0.0.0
	github.com/certwright/certwright/shared v0.0.0
	github.com/stretchr/testify v1.12.1
	go.opentelemetry.io/otel/trace v1.47.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	pgregory.net/rapid v1.3.0
)

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/shared => ../../shared
)
