package txt_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/txt"
)

func TestWhatProvidersWriteIsRead(t *testing.T) {
	for given, want := range map[string]string{
		`"v=spf1 -all"`: "v=spf1 -all",
		`v=spf1 -all`:   "v=spf1 -all",
		`"one" "two"`:   "onetwo",
		`"a\"b\\c\303"`: "a\"b\\c\303",
		`"unfinished`:   "unfinished",
		`"ends with \`:  `ends with \`,
		``:              "",
	} {
		require.Equal(t, want, txt.Unquote(given), given)
	}
	require.Equal(t, `"`+strings.Repeat("x", 255)+`" "`+strings.Repeat("x", 45)+`"`, txt.Quote(strings.Repeat("x", 300)))
}

func TestUnionKeepsWhatIsOthers(t *testing.T) {
	require.Equal(t, []string{"foreign", "b", "c"}, txt.Union([]string{"foreign", "a", "b"}, []string{"b", "c"}, []string{"a", "unknown"}))
	require.Empty(t, txt.Union([]string{"a"}, nil, []string{"a"}))
}

func FuzzQuote(f *testing.F) {
	f.Add("plain")
	f.Add("a\"b\\c\x00\xff")
	f.Add(strings.Repeat("\\", 300))
	f.Fuzz(func(t *testing.T, v string) {
		require.Equal(t, v, txt.Unquote(txt.Quote(v)))
		_ = txt.Unquote(v) // whatever a provider says
	})
}
