package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
)

func TestAProblemSaysEachThingOnce(t *testing.T) {
	sub := &typesv1.Subproblem{Identifier: "www.example.org", Detail: "NXDOMAIN"}
	for _, row := range []struct{ name, detail, want string }{
		{"the detail has it already", "no control of www.example.org: NXDOMAIN", "no control of www.example.org: NXDOMAIN (VALIDATION_FAILED)"},
		{"the detail does not have it", "no control", "no control; www.example.org: NXDOMAIN (VALIDATION_FAILED)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, why(&typesv1.Problem{Reason: "VALIDATION_FAILED", Detail: row.detail, Subproblems: []*typesv1.Subproblem{sub}}))
		})
	}
}
