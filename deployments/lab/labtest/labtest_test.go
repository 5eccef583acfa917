package labtest_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/labtest"
)

// recorder is a test that only notes how it was ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                      {}
func (r *recorder) Skip(args ...any)             { r.skipped = fmt.Sprint(args...) }
func (r *recorder) Fatalf(f string, args ...any) { r.failed = fmt.Sprintf(f, args...); panic(r) }

func TestAMissingProgramSkipsAndFailsWhereAllIsRequired(t *testing.T) {
	t.Setenv("REQUIRE_ALL", "")
	r := &recorder{}
	labtest.Need(r, "no-such-program", "some-package")
	require.Equal(t, "the program no-such-program is not installed; install the package some-package", r.skipped)
	r = &recorder{}
	labtest.Need(r, "go", "some-package")
	require.Empty(t, r.skipped+r.failed, "a program that is there changes nothing")

	t.Setenv("REQUIRE_ALL", "1")
	r = &recorder{}
	require.Panics(t, func() { labtest.Need(r, "no-such-program", "some-package") })
	require.Contains(t, r.failed, "install the package some-package")
	require.Empty(t, r.skipped)
}
