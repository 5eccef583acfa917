package look_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/challenges/internal/adapters/look"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/testkit"
)

const name = "_acme-challenge.example.org"

// resolver answers TXT questions with these values, over UDP.
func resolver(t *testing.T, rcode int, values ...string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	started := make(chan struct{})
	s := &mdns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetRcode(r, rcode)
		for _, v := range values {
			half := len(v) / 2 // as a server that splits strings would
			m.Answer = append(m.Answer, &mdns.TXT{Hdr: mdns.RR_Header{Name: r.Question[0].Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET}, Txt: []string{v[:half], v[half:]}})
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown() })
	return conn.LocalAddr().String()
}

func TestATXTRecordIsLookedForAtEveryResolver(t *testing.T) {
	has, other := resolver(t, mdns.RcodeSuccess, "old", "right"), resolver(t, mdns.RcodeSuccess, "old", strings.Repeat("x", 120))
	none, refuses := resolver(t, mdns.RcodeNameError), resolver(t, mdns.RcodeRefused)
	dead := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	sentence := func(said string) string {
		return `the TXT record _acme-challenge.example.org should have the value "right", but ` + said + "; correct the record, wait for it to spread, and verify again"
	}
	table := []struct {
		name      string
		resolvers []string
		want      string
	}{
		{"all have it", []string{has, has}, ""},
		{"one that does not answer is no obstacle", []string{has, refuses}, ""},
		{"one has others", []string{has, other}, sentence(has + " has it; " + other + ` has "old", "` + strings.Repeat("x", 100) + `"… (120 bytes)`)},
		{"one has none", []string{none}, sentence(none + " has no TXT record there")},
		{"nobody answers", []string{refuses, dead}, sentence(refuses + ": answered REFUSED; " + dead + ": no answer (DEAD)")},
		{"there is nobody to ask", nil, "no resolver is known to ask; set dns.resolvers of the challenges service, e.g. [192.0.2.53:53]"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			e := &look.Eyes{Resolvers: row.resolvers, Timeout: 2 * time.Second}
			sight, err := e.TXT(t.Context(), name, "right", domain.Check{})
			require.NoError(t, err)
			got := sight.Wrong
			if i := strings.Index(got, dead+": no answer ("); i >= 0 { // how a closed port answers is the system's affair
				i += len(dead + ": no answer (")
				got = got[:i] + "DEAD" + got[strings.Index(got[i:], ")")+i:]
			}
			require.Empty(t, cmp.Diff(row.want, got))
		})
	}
}

func TestAFileIsLookedForAsACADoes(t *testing.T) {
	var port int
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tok") {
			_, _ = w.Write([]byte("tok.key"))
			return
		}
		_, _ = w.Write([]byte("what nobody should see"))
	}))
	t.Cleanup(elsewhere.Close)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		case "tok":
			_, _ = w.Write([]byte("tok.key \r\n"))
		case "wrong":
			_, _ = w.Write([]byte("<html>welcome</html>"))
		case "moved":
			http.Redirect(w, r, elsewhere.URL+"/tok", http.StatusFound)
		case "lured":
			http.Redirect(w, r, elsewhere.URL+"/secret", http.StatusFound)
		case "round":
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(site.Close)
	_, p, err := net.SplitHostPort(site.Listener.Addr().String())
	require.NoError(t, err)
	port, err = strconv.Atoi(p)
	require.NoError(t, err)
	away := strings.TrimPrefix(elsewhere.URL, "http://")
	e := &look.Eyes{Port: port, Own: "127.0.0.1:" + p, Timeout: 5 * time.Second}
	at := func(token string) string {
		return fmt.Sprintf("http://127.0.0.1:%d/.well-known/acme-challenge/%s", port, token)
	}
	table := []struct{ name, token, want string }{
		{"the file is there, with a newline", "tok", ""},
		{"the file is there after a redirect", "moved", ""},
		{"another file is there", "wrong", at("wrong") + ` should answer "tok.key", but it answers "<html>welcome</html>"; place the file, and verify again`},
		{"no file is there", "none", at("none") + ` should answer "tok.key", but it answers 404 Not Found: "404 page not found"; place the file, and verify again`},
		{"what another host says is not repeated", "lured", at("lured") + ` should answer "tok.key", but it answers something else after a redirect to ` + away + `; place the file, and verify again`},
		{"redirects without end", "round", at("round") + ` should answer "tok.key", but it answers 302 Found; place the file, and verify again`},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			got, err := e.HTTP(t.Context(), "127.0.0.1", row.token, "tok.key")
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(row.want, got.Wrong))
			require.Len(t, got.Found, 1, "what was found where is told in any case")
		})
	}
	t.Run("a closed port", func(t *testing.T) {
		shut := &look.Eyes{Port: testkit.FreePort(t), Timeout: time.Second}
		got, err := shut.HTTP(t.Context(), "127.0.0.1", "tok", "v")
		require.NoError(t, err)
		require.Contains(t, got.Wrong, "but there is no answer (dial tcp 127.0.0.1:")
		require.Contains(t, got.Wrong, "connection refused); place the file, and verify again")
	})
	t.Run("the own responder is asked by the name of the site", func(t *testing.T) {
		got, err := e.Responder(t.Context(), domain.HTTP01, "example.org", "none", "v")
		require.NoError(t, err)
		require.Equal(t, at("none")+` should answer "v", but it answers 404 Not Found: "404 page not found"; is another program listening on this port?`, got.Wrong)
		got, err = (&look.Eyes{}).Responder(t.Context(), domain.HTTP01, "example.org", "none", "v")
		require.NoError(t, err)
		require.Empty(t, got, "switched off, it is not asked")
	})
	t.Run("the end of the step is no verdict", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := e.HTTP(ctx, "127.0.0.1", "tok", "v")
		require.Error(t, err)
		_, err = (&look.Eyes{Resolvers: []string{"127.0.0.1:1"}, Timeout: time.Second}).TXT(ctx, name, "v", domain.Check{})
		require.Error(t, err)
	})
}

func TestTheHostsResolversAreRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(file, []byte("search x.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"), 0o600))
	require.Equal(t, []string{"192.0.2.53:53", "[2001:db8::53]:53"}, look.SystemResolvers(file))
	require.Empty(t, look.SystemResolvers(file+".missing"))
}
