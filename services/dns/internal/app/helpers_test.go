package app_test

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func protoMarshal(m proto.Message) ([]byte, error) { return protojson.Marshal(m) }

// stable is a stable form to sort by.
func stable(m proto.Message) []byte {
	b, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}
