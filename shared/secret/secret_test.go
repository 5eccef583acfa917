package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

const content = "hunter2-correct-horse"

type holder struct {
	Public secret.Value `json:"public" yaml:"public"`
	inner  secret.Value
}

// requireHidden fails when out holds the content in any of the forms in which fmt and the encoders write bytes.
func requireHidden(t *testing.T, out string) {
	t.Helper()
	require.NotContains(t, out, content)
	require.NotContains(t, strings.ToLower(out), fmt.Sprintf("%x", content))
	require.NotContains(t, out, fmt.Sprintf("%v", []byte(content)))
	require.NotContains(t, out, fmt.Sprintf("%#v", []byte(content)))
}

func TestNoVerbShowsTheContent(t *testing.T) {
	v := secret.New(content)
	h := holder{Public: v, inner: v}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%U", "%e", "%t", "%10.3s"} {
		require.Equal(t, secret.Placeholder, fmt.Sprintf(verb, v), verb)
		require.Equal(t, secret.Placeholder, fmt.Sprintf(verb, &v), verb)
		for _, x := range []any{h, &h, []secret.Value{v}, map[string]holder{"k": h}, []any{h}, struct{ h *holder }{&h}} {
			requireHidden(t, fmt.Sprintf(verb, x))
		}
	}
	requireHidden(t, fmt.Sprint(v, h, &h))
	requireHidden(t, fmt.Errorf("wrapping %v", v).Error())
}

func TestNoEncoderShowsTheContent(t *testing.T) {
	v := secret.New(content)
	h := holder{Public: v, inner: v}

	j, err := json.Marshal(map[string]any{"v": v, "p": &v, "h": h, "l": []secret.Value{v}})
	require.NoError(t, err)
	requireHidden(t, string(j))
	require.JSONEq(t, `{"v":"[secret]","p":"[secret]","h":{"public":"[secret]"},"l":["[secret]"]}`, string(j))

	y, err := yaml.Marshal(h)
	require.NoError(t, err)
	require.Equal(t, "public: '[secret]'\n", string(y))

	x, err := xml.Marshal(h)
	require.NoError(t, err)
	requireHidden(t, string(x))

	for _, log := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var out bytes.Buffer
		slog.New(log(&out)).Info("message", "v", v, "h", h, "p", &h)
		requireHidden(t, out.String())
		require.Contains(t, out.String(), secret.Placeholder)
	}
}

func TestASecretIsNotStoredUnsealed(t *testing.T) {
	h := holder{Public: secret.New(content)}
	_, err := bson.Marshal(h)
	require.ErrorContains(t, err, "only sealed")
	require.ErrorContains(t, gob.NewEncoder(&bytes.Buffer{}).Encode(h), "only sealed")
}

func TestContentComesBackUnchanged(t *testing.T) {
	b := []byte{0, 255, '\n', 7}
	v := secret.NewBytes(b)
	b[0] = 9
	require.Equal(t, []byte{0, 255, '\n', 7}, v.RevealBytes())
	require.Equal(t, "\x00\xff\n\x07", v.Reveal())
	v.RevealBytes()[0] = 9
	require.Equal(t, byte(0), v.RevealBytes()[0], "the caller gets a copy")

	require.True(t, v.Equal(secret.NewBytes([]byte{0, 255, '\n', 7})))
	require.False(t, v.Equal(secret.New("other")))
	require.True(t, secret.Value{}.IsZero())
	require.True(t, secret.New("").IsZero())
	require.True(t, secret.Value{}.Equal(secret.New("")))
	require.Empty(t, secret.Value{}.Reveal())
}

func TestConfigurationTextIsTakenButNotThePlaceholder(t *testing.T) {
	var h holder
	require.NoError(t, json.Unmarshal([]byte(`{"public":"`+content+`"}`), &h))
	require.Equal(t, content, h.Public.Reveal())
	require.Error(t, json.Unmarshal([]byte(`{"public":"[secret]"}`), &h))
}

func TestFromFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	for _, c := range []struct {
		name, path, want, reason string
	}{
		{"a file without newline is the secret", write("a", content), content, ""},
		{"one newline at the end is dropped", write("b", content+"\n"), content, ""},
		{"one Windows newline at the end is dropped", write("c", content+"\r\n"), content, ""},
		{"inner newlines stay", write("d", "a\nb\n"), "a\nb", ""},
		{"a missing file is named", filepath.Join(dir, "none"), "", "SECRET_FILE_MISSING"},
		{"an empty file is refused", write("e", "\n"), "", "SECRET_FILE_UNREADABLE"},
		{"an oversized file is refused", write("f", strings.Repeat("x", 1<<20+1)), "", "SECRET_FILE_UNREADABLE"},
		{"a directory is refused", dir, "", "SECRET_FILE_UNREADABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := secret.FromFile(c.path)
			if c.reason != "" {
				require.Equal(t, c.reason, errs.ReasonOf(err))
				require.Equal(t, errs.Precondition, errs.KindOf(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, v.Reveal())
		})
	}
}

func TestFromEnv(t *testing.T) {
	t.Setenv("SECRET_TEST_VALUE", content)
	v, err := secret.FromEnv("SECRET_TEST_VALUE")
	require.NoError(t, err)
	require.Equal(t, content, v.Reveal())

	_, err = secret.FromEnv("SECRET_TEST_NONE")
	require.Equal(t, "SECRET_ENV_MISSING", errs.ReasonOf(err))
	require.ErrorContains(t, err, "SECRET_TEST_NONE")
}
