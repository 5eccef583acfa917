module github.com/certwright/certwright/services/certwright

go 1.26

replace (
	github.com/certwright/certwright/api => ../../api
	github.com/certwright/certwright/shared => ../../shared
)
