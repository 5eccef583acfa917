package renewals_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/renewals"
	"github.com/certwright/certwright/shared/config"
)

func TestConfig(t *testing.T) {
	require.NoError(t, config.Validate(renewals.Defaults()))
	for name, spoil := range map[string]func(c *renewals.Config){
		"a part of life that is the whole":     func(c *renewals.Config) { c.LifeLeft = 1 },
		"ARI read less often than once a day":  func(c *renewals.Config) { c.ARIMaxInterval = 48 * time.Hour },
		"a warning with no time left":          func(c *renewals.Config) { c.Expiring = []time.Duration{0} },
		"a question asked again without pause": func(c *renewals.Config) { c.AskAgain = 0 },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			c := renewals.Defaults()
			spoil(&c)
			require.Error(t, config.Validate(c))
		})
	}
}
