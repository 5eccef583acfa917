module github.com/certwright/certwright/services/identity

go 1.26

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/shared => ../../shared
)
