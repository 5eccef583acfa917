package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

type listen struct {
	Address string `yaml:"address" doc:"Where to listen." validate:"hostname_port"`
	Port    int    `yaml:"port"`
}

type route struct {
	Solver string   `yaml:"solver" validate:"oneof=dns http"`
	Zones  []string `yaml:"zones"`
}

type settings struct {
	FirstRepeat time.Duration     `yaml:"first_repeat" doc:"How long to wait before telling again" validate:"min=1s,max=1h"`
	Mode        string            `yaml:"mode" doc:"How to run." validate:"oneof=one many"`
	Password    secret.Value      `yaml:"password" doc:"Password of the store." validate:"omitempty,min=8"`
	HTTP        listen            `yaml:"http"`
	Names       []string          `yaml:"names" validate:"max=3,dive,fqdn"`
	Labels      map[string]string `yaml:"labels"`
	Routes      map[string]route  `yaml:"routes" validate:"dive"`
	Level       slog.Level        `yaml:"level"`
	Ratio       float64           `yaml:"ratio" validate:"gte=0,lte=1"`
	Enabled     bool              `yaml:"enabled"`
	Limit       *uint32           `yaml:"limit"`
	hidden      int
}

func defaults() settings {
	return settings{FirstRepeat: time.Minute, Mode: "one", HTTP: listen{Address: "127.0.0.1:8080", Port: 1}, Ratio: 0.5, hidden: 1}
}

func write(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "orders.yaml")
	require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	return p
}

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	t.Setenv("CONFIG_TEST_PASSWORD", "from-the-environment")
	file := write(t, "password-of-file\n")
	ten := uint32(10)
	for _, c := range []struct {
		name string
		yaml string
		env  []string
		flag map[string]string
		want func(*settings)
	}{
		{name: "nothing given leaves the defaults", want: func(*settings) {}},
		{name: "an empty key leaves the default", yaml: "mode:\nhttp:\n", want: func(*settings) {}},
		{name: "the file overrides the defaults", yaml: "first_repeat: 90s\nhttp:\n  address: localhost:1\n", want: func(s *settings) {
			s.FirstRepeat, s.HTTP.Address = 90*time.Second, "localhost:1"
		}},
		{
			name: "the environment overrides the file", yaml: "mode: many\nhttp: {port: 2}\n",
			env: []string{"CERTWRIGHT_ORDERS_HTTP_PORT=3", "PATH=/bin", "CERTWRIGHT_KEYS_NONE=1"}, want: func(s *settings) { s.Mode, s.HTTP.Port = "many", 3 },
		},
		{
			name: "a flag overrides the environment", env: []string{"CERTWRIGHT_ORDERS_FIRST_REPEAT=2s"},
			flag: map[string]string{"first-repeat": "3s", "http.port": "4"}, want: func(s *settings) { s.FirstRepeat, s.HTTP.Port = 3*time.Second, 4 },
		},
		{
			name: "lists and maps have a short form in the environment",
			env:  []string{"CERTWRIGHT_ORDERS_NAMES=a.example, b.example", "CERTWRIGHT_ORDERS_LABELS=x=1, y=2=3"},
			want: func(s *settings) {
				s.Names, s.Labels = []string{"a.example", "b.example"}, map[string]string{"x": "1", "y": "2=3"}
			},
		},
		{
			name: "anything has the flow form in the environment",
			env:  []string{"CERTWRIGHT_ORDERS_NAMES=[c.example]", "CERTWRIGHT_ORDERS_ROUTES={r: {solver: dns, zones: [z]}}"},
			want: func(s *settings) {
				s.Names, s.Routes = []string{"c.example"}, map[string]route{"r": {Solver: "dns", Zones: []string{"z"}}}
			},
		},
		{name: "scalars of all kinds are read", yaml: "level: WARN\nratio: 0.25\nenabled: true\nlimit: 10\n", want: func(s *settings) {
			s.Level, s.Ratio, s.Enabled, s.Limit = slog.LevelWarn, 0.25, true, &ten
		}},
		{name: "a secret may be text", yaml: "password: text-secret\n", want: func(s *settings) { s.Password = secret.New("text-secret") }},
		{name: "a secret may name a variable", yaml: "password: {env: CONFIG_TEST_PASSWORD}\n", want: func(s *settings) { s.Password = secret.New("from-the-environment") }},
		{name: "a secret may name a file", yaml: "password: {file: " + file + "}\n", want: func(s *settings) { s.Password = secret.New("password-of-file") }},
		{name: "a secret's variable may name a file", env: []string{"CERTWRIGHT_ORDERS_PASSWORD_FILE=" + file}, want: func(s *settings) { s.Password = secret.New("password-of-file") }},
		{
			name: "what Kubernetes injects for a service of our name is ignored",
			env: []string{
				"CERTWRIGHT_ORDERS_SERVICE_HOST=10.0.0.1", "CERTWRIGHT_ORDERS_SERVICE_PORT=9090", "CERTWRIGHT_ORDERS_SERVICE_PORT_GRPC=9090", "CERTWRIGHT_ORDERS_PORT=tcp://10.0.0.1:9090",
				"CERTWRIGHT_ORDERS_PORT_9090_TCP=tcp://10.0.0.1:9090", "CERTWRIGHT_ORDERS_PORT_9090_TCP_ADDR=10.0.0.1", "CERTWRIGHT_ORDERS_HTTP_PORT=tcp://10.0.0.2:80",
			},
			want: func(*settings) {},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := config.Source{Service: "orders", Env: c.env, Flags: c.flag}
			if c.yaml != "" {
				src.File = write(t, c.yaml)
			}
			got, want := defaults(), defaults()
			c.want(&want)
			require.NoError(t, config.Load(&got, src))
			require.Empty(t, cmp.Diff(want, got, cmp.AllowUnexported(settings{})))
		})
	}
}

func TestMistakesSayWhatWasGivenWhatIsAllowedAndWhereItWasSet(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		env        []string
		flag       map[string]string
		field      string
		says       []string
	}{
		{name: "an unknown key in the file", yaml: "mode: one\nfirst_repaet: 3s\n", field: "first_repaet", says: []string{"orders.yaml line 2", `"first_repeat"`}},
		{name: "an unknown nested key", yaml: "http:\n  adress: x\n", field: "http.adress", says: []string{"orders.yaml line 2", `"address"`}},
		{name: "an unknown key in a map of structs", yaml: "routes:\n  a: {solvr: dns}\n", field: "routes.a.solvr", says: []string{"line 2", `"solver"`}},
		{name: "a key given twice", yaml: "mode: one\nmode: many\n", field: "mode", says: []string{"twice", "line 2"}},
		{name: "an unknown variable", env: []string{"CERTWRIGHT_ORDERS_HTP_PORT=1"}, field: "CERTWRIGHT_ORDERS_HTP_PORT", says: []string{`"CERTWRIGHT_ORDERS_HTTP_PORT"`}},
		{name: "an unknown flag", flag: map[string]string{"first-repat": "1s"}, field: "first-repat", says: []string{"--first-repat", `"first_repeat"`}},
		{name: "a number that is none", yaml: "http: {port: many}\n", field: "http.port", says: []string{`"many" given`, "whole number", "line 1"}},
		{name: "a duration without unit", yaml: "first_repeat: 90\n", field: "first_repeat", says: []string{`"90" given`, "90s", "line 1"}},
		{name: "a mapping where a value is wanted", yaml: "mode: {a: b}\n", field: "mode", says: []string{"string", "mapping"}},
		{name: "a value where a list is wanted", yaml: "names: a\n", field: "names", says: []string{"wanted a list", `"a"`}},
		{name: "a list where the whole is a mapping", yaml: "[a]\n", field: "(file)", says: []string{"mapping", "list"}},
		{name: "a file that is not YAML", yaml: "a: [\n", field: "(file)", says: []string{"not YAML", "line"}},
		{name: "a value outside the allowed ones", yaml: "\nmode: three\n", field: "mode", says: []string{`"three" given`, "one, many", "line 2"}},
		{name: "a duration that is too long", env: []string{"CERTWRIGHT_ORDERS_FIRST_REPEAT=2h"}, field: "first_repeat", says: []string{"2h0m0s given", "at most 1h", "CERTWRIGHT_ORDERS_FIRST_REPEAT"}},
		{name: "a bad entry of a list", yaml: "names: [a.example, '-']\n", field: "names[1]", says: []string{`"-" given`, "domain name", "line 1"}},
		{name: "a list that is too long", yaml: "names: [a.b, c.d, e.f, g.h]\n", field: "names", says: []string{"4 entries given", "at most 3 entries"}},
		{name: "a bad address set by a flag", flag: map[string]string{"http.address": "nowhere"}, field: "http.address", says: []string{`"nowhere" given`, "host:port", "--http.address"}},
		{name: "a secret given as a flag", flag: map[string]string{"password": "hunter2-hunter2"}, field: "password", says: []string{"CERTWRIGHT_ORDERS_PASSWORD_FILE"}},
		{name: "a secret that is too short", yaml: "password: hunter2\n", field: "password", says: []string{"at least 8 characters", "line 1"}},
		{name: "a secret in the wrong form", yaml: "password: {path: hunter2}\n", field: "password", says: []string{"{file: PATH}"}},
		{name: "a secret list", yaml: "password: [hunter2]\n", field: "password", says: []string{"wanted secret"}},
		{name: "a secret file that is missing", env: []string{"CERTWRIGHT_ORDERS_PASSWORD_FILE=/nonexistent"}, field: "password", says: []string{"/nonexistent", "does not exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := config.Source{Service: "orders", Env: c.env, Flags: c.flag}
			if c.yaml != "" {
				src.File = write(t, c.yaml)
			}
			got := defaults()
			e := errs.As(config.Load(&got, src))
			require.NotNil(t, e, "an error is wanted")
			require.Equal(t, errs.Invalid, e.Kind)
			require.Equal(t, config.ReasonInvalid, e.Reason)
			require.Len(t, e.Fields, 1)
			require.Equal(t, c.field, e.Fields[0].Name)
			for _, s := range c.says {
				require.Contains(t, e.Fields[0].Msg, s)
			}
			require.NotContains(t, e.Error(), "hunter2")
		})
	}
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	got := defaults()
	e := errs.As(config.Load(&got, config.Source{
		Service: "orders", File: write(t, "a: 1\nb: 2\nfirst_repeat: x\n"), Env: []string{"CERTWRIGHT_ORDERS_C=1"}, Flags: map[string]string{"d": ""},
	}))
	require.NotNil(t, e)
	require.Len(t, e.Fields, 5)
}

func TestAMissingFileIsNamed(t *testing.T) {
	got := defaults()
	require.ErrorContains(t, config.Load(&got, config.Source{File: "/nonexistent/orders.yaml"}), "/nonexistent/orders.yaml")
}

func TestACompositionNamesVariablesBySection(t *testing.T) {
	var all struct {
		Orders settings `yaml:"orders"`
	}
	all.Orders = defaults()
	src := config.Source{
		Env:       []string{"CERTWRIGHT_ORDERS_FIRST_REPEAT=5s", "CERTWRIGHT_FAILPOINT_LOG=x", "CERTWRIGHT_TOKEN=t", "CERTWRIGHT_CLI_A=1"},
		IgnoreEnv: []string{"CERTWRIGHT_TOKEN", "CERTWRIGHT_CLI_"},
	}
	require.NoError(t, config.Load(&all, src))
	require.Equal(t, 5*time.Second, all.Orders.FirstRepeat)
	src.IgnoreEnv = nil
	require.Error(t, config.Load(&all, src))
}

type checked struct {
	Low  int `yaml:"low"`
	High int `yaml:"high"`
}

func (c *checked) Validate() error {
	if c.Low < 0 {
		return errs.New(errs.Invalid, "", "bad").WithField("low", "%d given, allowed: from 0", c.Low)
	}
	if c.Low > c.High {
		return fmt.Errorf("low %d is above high %d", c.Low, c.High)
	}
	return nil
}

func TestTheOwnMethodHasTheLastWord(t *testing.T) {
	require.NoError(t, config.Load(&checked{High: 1}, config.Source{}))
	err := config.Load(&checked{Low: 2, High: 1}, config.Source{Service: "orders"})
	require.Equal(t, errs.Invalid, errs.KindOf(err))
	require.ErrorContains(t, err, "low 2 is above high 1")
	err = config.Load(&checked{}, config.Source{Flags: map[string]string{"low": "-1"}})
	require.Equal(t, []errs.Field{{Name: "low", Msg: "-1 given, allowed: from 0 (set in flag --low)"}}, errs.As(err).Fields)
	require.Equal(t, config.ReasonInvalid, errs.ReasonOf(err))
}

func TestLoadWantsAPointerToAStruct(t *testing.T) {
	require.Error(t, config.Load(defaults(), config.Source{}))
}

type command struct {
	RequestID string `validate:"required"`
	Spec      spec   `json:"spec"`
	Token     secret.Value
}

type spec struct {
	Names    []string `json:"names" validate:"required,dive,hostname_rfc1123"`
	IssuerID string   `validate:"required"`
	Keys     []key    `json:"keys" validate:"dive"`
}

type key struct {
	Pass secret.Value `json:"pass" validate:"max=3"`
}

func TestACommandsViolationsAreNamedByTheirJSONPath(t *testing.T) {
	require.NoError(t, config.Validate(command{RequestID: "r", Spec: spec{Names: []string{"a"}, IssuerID: "i"}}))

	e := errs.As(config.Validate(&command{Spec: spec{Names: []string{"ok", "b c"}, Keys: []key{{}, {Pass: secret.New("hunter2")}}}}))
	require.NotNil(t, e)
	require.Equal(t, errs.Invalid, e.Kind)
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "requestID", Msg: "is required"},
		{Name: "spec.names[1]", Msg: `"b c" given, wanted a host name`},
		{Name: "spec.issuerID", Msg: "is required"},
		{Name: "spec.keys[1].pass", Msg: "the secret given is not right, allowed: at most 3 characters"},
	}, e.Fields))
}

func TestReferenceListsEveryKey(t *testing.T) {
	d := defaults()
	d.Password = secret.New("hunter2")
	d.Names = []string{"a.example"}
	got := config.Reference("orders", &d)
	require.NotContains(t, got, "hunter2")
	want := strings.Join([]string{
		"| key | type | default | environment | description |",
		"|---|---|---|---|---|",
		"| `first_repeat` | duration | `1m` | `CERTWRIGHT_ORDERS_FIRST_REPEAT` | How long to wait before telling again. At least 1s. At most 1h. |",
		"| `mode` | string | `one` | `CERTWRIGHT_ORDERS_MODE` | How to run. One of: one, many. |",
		"| `password` | secret |  | `CERTWRIGHT_ORDERS_PASSWORD` or `CERTWRIGHT_ORDERS_PASSWORD_FILE` | Password of the store. At least 8. |",
		"| `http.address` | string | `127.0.0.1:8080` | `CERTWRIGHT_ORDERS_HTTP_ADDRESS` | Where to listen. |",
		"| `http.port` | whole number | `1` | `CERTWRIGHT_ORDERS_HTTP_PORT` |  |",
		"| `names` | list of string | `[a.example]` | `CERTWRIGHT_ORDERS_NAMES` | At most 3. |",
		"| `labels` | map of string |  | `CERTWRIGHT_ORDERS_LABELS` |  |",
		"| `routes` | map of mapping |  | `CERTWRIGHT_ORDERS_ROUTES` |  |",
		"| `level` | slog.Level | `INFO` | `CERTWRIGHT_ORDERS_LEVEL` |  |",
		"| `ratio` | number | `0.5` | `CERTWRIGHT_ORDERS_RATIO` | At least 0. At most 1. |",
		"| `enabled` | true or false | `false` | `CERTWRIGHT_ORDERS_ENABLED` |  |",
		"| `limit` | whole number from 0 |  | `CERTWRIGHT_ORDERS_LIMIT` |  |",
		"",
	}, "\n")
	require.Empty(t, cmp.Diff(want, got))
}
