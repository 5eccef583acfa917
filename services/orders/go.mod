module github.com/certwright/certwright/services/orders

go 1.26

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/shared => ../../shared
)

require google.golang.org/protobuf v1.36.12 // indirect
