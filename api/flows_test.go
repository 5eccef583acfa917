package api_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/api/events"
)

// The page of flows and the contracts say the same: each event has one row, with its teller and who acts on it.
func TestThePageOfFlowsAgreesWithTheContracts(t *testing.T) {
	page, err := os.ReadFile("../docs/flows.md")
	require.NoError(t, err)
	table, _, ok := strings.Cut(string(page), "## Hand-overs")
	require.True(t, ok)
	names := regexp.MustCompile("`([a-z_]+\\.[a-z_]+)`")
	onPage := map[string]bool{}
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !names.MatchString(cells[2]) {
			continue
		}
		var actors []string
		if by := strings.TrimSpace(cells[3]); !strings.HasPrefix(by, "nobody") {
			actors = strings.Split(strings.ReplaceAll(by, " ", ""), ",")
		}
		slices.Sort(actors)
		for _, m := range names.FindAllStringSubmatch(cells[2], -1) {
			typ := m[1]
			require.False(t, onPage[typ], "%s stands twice", typ)
			onPage[typ] = true
			msg, ok := events.New(typ)
			require.True(t, ok, "%s is on the page but not in the contracts", typ)
			o := events.Options(msg)
			require.Equal(t, strings.TrimSpace(cells[1]), o.GetToldBy(), typ)
			want := slices.Clone(o.GetActedOnBy())
			slices.Sort(want)
			require.Equal(t, want, actors, typ)
		}
	}
	for _, typ := range events.Types() {
		require.True(t, onPage[typ], "%s is in the contracts but not on the page", typ)
	}
}
