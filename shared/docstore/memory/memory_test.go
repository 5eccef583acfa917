package memory_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/docstoretest"
	"github.com/certwright/certwright/shared/docstore/memory"
)

func TestConformance(t *testing.T) {
	docstoretest.Run(t, func(t *testing.T) docstore.Store {
		t.Helper()
		s := memory.New(clock.System())
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}, docstoretest.Capabilities{Concurrent: true})
}
