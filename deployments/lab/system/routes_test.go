package system_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/bind"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
)

// request asks for a certificate by a spec.
func request(ctx context.Context, t *testing.T, s *stage.Stage, spec *typesv1.CertificateSpec) *inventoryv1.Certificate {
	t.Helper()
	out := &inventoryv1.Certificate{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{Certificate: &inventoryv1.Certificate{
		Owner: "ops@shop.test", AllowDuplicate: true, Spec: spec,
	}}, out))
	return out
}

// challenge waits until the first challenge of the certificate's order is as done wants it.
func challenge(ctx context.Context, t *testing.T, s *stage.Stage, c *inventoryv1.Certificate, done func(*challengesv1.Challenge) bool) *challengesv1.Challenge {
	t.Helper()
	var last *challengesv1.Challenge
	labtest.Eventually(ctx, t, func() (bool, string) {
		all, err := s.Challenges(ctx, c.GetIntent().GetOrderId())
		if err != nil || len(all) == 0 {
			return false, fmt.Sprint("no challenge yet: ", err)
		}
		last = all[0]
		return done(last), fmt.Sprint(last)
	})
	return last
}

// Both built-in responders, each on its own port, with real validation.
func TestTLSALPN01BesideHTTP01(t *testing.T) {
	t.Parallel()
	s, issuer := start(t, stage.Options{CA: ca.Options{Strict: true}})
	ctx := labtest.Deadline(t, 90*time.Second)
	spec := func(typ string, names ...string) *typesv1.CertificateSpec {
		return &typesv1.CertificateSpec{Issuer: issuer.GetId(), Names: names, Challenge: &typesv1.ChallengeSpec{Type: typ}}
	}
	address := spec("tls-alpn-01", "127.0.0.1")
	address.Profile = ca.DefaultProfile
	rows := map[string]*typesv1.CertificateSpec{
		"two names by tls-alpn-01": spec("tls-alpn-01", "alpn.shop.test", "www.alpn.shop.test"),
		"one of them once more":    spec("tls-alpn-01", "alpn.shop.test"), // a handshake carries no token: they take turns
		"an address":               address,
		"a name by http-01":        spec("http-01", "http.shop.test"),
	}
	var wg sync.WaitGroup
	for name, row := range rows {
		made := request(ctx, t, s, row)
		wg.Go(func() {
			got, err := s.Version(ctx, made.GetId(), "")
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if all, err := s.Challenges(ctx, made.GetIntent().GetOrderId()); err != nil || len(all) != len(row.GetNames()) || all[0].GetType() != row.GetChallenge().GetType() {
				t.Errorf("%s: %v %v, version %v", name, all, err, got.GetCurrentVersion())
			}
		})
	}
	wg.Wait()
	err := s.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{Certificate: &inventoryv1.Certificate{
		Owner: "ops@shop.test", Spec: spec("tls-alpn-01", "*.shop.test"),
	}}, &inventoryv1.Certificate{})
	var refused *client.Error
	require.ErrorAs(t, err, &refused)
	require.Contains(t, refused.Body, `is a wildcard, which tls-alpn-01 cannot prove; choose dns-01 or auto`)
}

// The zone of the names takes no updates; its _acme-challenge is an alias into a zone that does. BIND is the name server of both.
func TestDelegationByCNAMEAndRoutes(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "named", "bind9")
	named := labtest.Bind(t, bind.Options{Recursive: true, Zones: []string{"corp.test", "acme.test"}, Hosts: []string{"www.corp.test", "turn.corp.test"}, Records: []string{
		"_acme-challenge.www.corp.test. CNAME hop.acme.test.", "hop.acme.test. CNAME www-corp.acme.test.",
		"_acme-challenge.turn.corp.test. CNAME back.acme.test.", "back.acme.test. CNAME _acme-challenge.turn.corp.test.",
	}})
	_, port, err := net.SplitHostPort(named.Addr())
	require.NoError(t, err)
	authority := labtest.CA(t, ca.Options{Strict: true, DNSServer: named.Addr()})
	s, _ := start(t, stage.Options{Change: func(cfg *certwright.Config) {
		hasty(cfg)
		cfg.Challenges.DNS.Resolvers = []string{named.Addr()}
		_, err := fmt.Sscan(port, &cfg.Challenges.DNS.CheckPort)
		require.NoError(t, err)
	}})
	ctx := labtest.Deadline(t, 90*time.Second)
	issuer := &ordersv1.Issuer{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers", &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{
		DisplayName: "CA that asks BIND", Kind: "acme", Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: authority.DirectoryURL(), TrustRootsPem: string(authority.TLSRootPEM()), IssuedRootsPem: string(authority.RootsPEM()), TermsAgreed: true,
		},
	}}, issuer))
	dac := account(ctx, t, s, "acme.test", named.Addr(), named.Key)

	made, err := s.Request(ctx, issuer.GetId(), "auto", nil, "www.corp.test")
	require.NoError(t, err)
	_, err = s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	all, err := s.Challenges(ctx, made.GetIntent().GetOrderId())
	require.NoError(t, err)
	require.Equal(t, "www-corp.acme.test", all[0].GetLocation())
	require.Contains(t, all[0].GetExplanation(), "_acme-challenge.www.corp.test → hop.acme.test → www-corp.acme.test")

	loop, err := s.Request(ctx, issuer.GetId(), "dns-01", nil, "turn.corp.test")
	require.NoError(t, err)
	refused := challenge(ctx, t, s, loop, func(c *challengesv1.Challenge) bool { return c.GetProblem() != nil })
	require.Equal(t, "CHALLENGE_ALIAS_LOOP", refused.GetProblem().GetReason())
	require.Contains(t, refused.GetProblem().GetDetail(), "_acme-challenge.turn.corp.test → back.acme.test → _acme-challenge.turn.corp.test")

	// A route that delegates where the DNS does not, mended; and the zone's own name servers are asked before the CA is.
	route := &challengesv1.Route{
		DisplayName: "corp", Solver: "dns_account", DnsAccountId: dac, DelegateTo: "elsewhere.acme.test", Check: "authoritative",
		Pattern: &challengesv1.RoutePattern{Pattern: &challengesv1.RoutePattern_Zone{Zone: "corp.test"}},
	}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/routes", &challengesv1.CreateRouteRequest{Route: route}, route))
	second, err := s.Request(ctx, issuer.GetId(), "auto", nil, "www.corp.test", "*.www.corp.test")
	require.NoError(t, err)
	refused = challenge(ctx, t, s, second, func(c *challengesv1.Challenge) bool { return c.GetProblem() != nil })
	require.Equal(t, "CHALLENGE_NOT_DELEGATED", refused.GetProblem().GetReason())
	require.Contains(t, refused.GetProblem().GetDetail(), `create the record "_acme-challenge.www.corp.test. CNAME elsewhere.acme.test.", or correct the route's delegateTo`)
	require.NoError(t, s.Call(ctx, http.MethodPatch, "/v1/routes/"+route.GetId(), &challengesv1.UpdateRouteRequest{
		Route: &challengesv1.Route{DelegateTo: "www-corp.acme.test"},
	}, route))
	require.Equal(t, "authoritative", route.GetCheck(), "what was not set stays")
	_, err = s.Version(ctx, second.GetId(), "")
	require.NoError(t, err)
	all, err = s.Challenges(ctx, second.GetIntent().GetOrderId())
	require.NoError(t, err)
	require.Len(t, all, 2)
	for _, c := range all {
		require.Equal(t, route.GetId(), c.GetRouteId())
		require.Equal(t, []string{fmt.Sprintf("ns.acme.test (%s) has it", named.Addr())}, c.GetFound())
	}
	explained := &challengesv1.ExplainRouteResponse{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/routes:explain", &challengesv1.ExplainRouteRequest{Name: "*.www.corp.test"}, explained))
	require.Equal(t, route.GetId(), explained.GetRoute().GetId())
	require.Equal(t, "www-corp.acme.test", explained.GetLocation())
	require.Equal(t, dac, explained.GetDnsAccountId())
	require.Nil(t, explained.GetProblem())
	labtest.Eventually(ctx, t, func() (bool, string) {
		values, err := named.TXT(ctx, "www-corp.acme.test")
		return err == nil && len(values) == 0, fmt.Sprint(values, err)
	})
}

// A person places each kind of answer: absent, wrong, right. The CA is asked only when it is right.
func TestAnswersPlacedByHand(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "openssl", "openssl")
	ctx := labtest.Deadline(t, 2*time.Minute)
	file := &fileServer{}
	for _, row := range []struct {
		typ           string
		absent, wrong string
		place         func(t *testing.T, s *stage.Stage, c *challengesv1.Challenge, right bool)
	}{
		{"http-01", "it answers 404 Not Found", `it answers "wrong"`, func(_ *testing.T, _ *stage.Stage, c *challengesv1.Challenge, right bool) {
			value := "wrong"
			if right {
				value = c.GetValue()
			}
			_, path, _ := strings.Cut(strings.TrimPrefix(c.GetLocation(), "http://"), "/")
			file.set("/"+path, value)
		}},
		{"dns-01", "has no TXT record there", `has "wrong"`, func(t *testing.T, s *stage.Stage, c *challengesv1.Challenge, right bool) {
			value := "wrong"
			if right {
				value = c.GetValue()
			}
			s.DNS.Remove(c.GetLocation(), dns.TypeTXT)
			require.NoError(t, s.DNS.Add(fmt.Sprintf("%s. 60 IN TXT %q", c.GetLocation(), value)))
		}},
		{"tls-alpn-01", "there is no answer to a handshake", "of another key authorization", func(t *testing.T, s *stage.Stage, c *challengesv1.Challenge, right bool) {
			showByOpenSSL(ctx, t, c, s.TLSPort, right)
		}},
	} {
		t.Run(row.typ, func(t *testing.T) {
			// A person's servers have the ports of the responders, which are off.
			s, issuer := start(t, stage.Options{CA: ca.Options{Strict: true}, Change: func(cfg *certwright.Config) {
				hasty(cfg)
				c := &cfg.Challenges
				_, port, _ := net.SplitHostPort(c.HTTP01Addr)
				_, _ = fmt.Sscan(port, &c.HTTP01.CheckPort)
				_, port, _ = net.SplitHostPort(c.TLSALPN01.Listen)
				_, _ = fmt.Sscan(port, &c.TLSALPN01.CheckPort)
				c.HTTP01Addr, c.TLSALPN01.Listen = "", ""
			}})
			serveFiles(t, s.HTTP01Port, file)
			name := strings.ReplaceAll(row.typ, "-", "") + ".shop.test"
			made := request(ctx, t, s, &typesv1.CertificateSpec{
				Issuer: issuer.GetId(), Names: []string{name}, Challenge: &typesv1.ChallengeSpec{Type: row.typ, Manual: true},
			})
			c := challenge(ctx, t, s, made, func(c *challengesv1.Challenge) bool { return c.GetActionRequired() })
			require.Contains(t, c.GetInstructions(), c.GetLocation()[:4])
			verify := func() *challengesv1.Challenge {
				out := &challengesv1.Challenge{}
				require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/challenges/"+c.GetId()+":verify", nil, out))
				return out
			}
			for _, wrong := range []string{row.absent, row.wrong} {
				got := verify()
				require.Equal(t, "presenting", got.GetState())
				require.Equal(t, "CHALLENGE_NOT_VISIBLE", got.GetProblem().GetReason())
				require.Contains(t, got.GetProblem().GetDetail(), wrong)
				require.Len(t, got.GetFound(), 1)
				row.place(t, s, c, wrong == row.wrong)
			}
			got := verify()
			require.Nil(t, got.GetProblem(), "%v", got)
			require.Len(t, got.GetFound(), 1)
			_, err := s.Version(ctx, made.GetId(), "")
			require.NoError(t, err)
		})
	}
}

// fileServer is a web server of a person.
type fileServer struct {
	mu            sync.Mutex
	path, content string
}

func (p *fileServer) set(path, content string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path, p.content = path, content
}

func (p *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.URL.Path != p.path {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(p.content))
}

func serveFiles(t *testing.T, port int, p *fileServer) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

var shown *exec.Cmd

// showByOpenSSL does what the instructions say, on another port than 443.
func showByOpenSSL(ctx context.Context, t *testing.T, c *challengesv1.Challenge, port int, right bool) {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(c.GetInstructions(), "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "openssl ") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 2)
	dir := t.TempDir()
	if !right {
		i := strings.Index(lines[0], "DER:0420") + len("DER:0420")
		lines[0] = lines[0][:i] + strings.Repeat("00", 32) + lines[0][i+64:]
	}
	run := exec.CommandContext(ctx, "sh", "-c", lines[0]) //nolint:gosec // what the platform told
	run.Dir = dir
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	if shown != nil {
		_ = shown.Process.Kill()
		_ = shown.Wait()
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	args := strings.Fields(strings.Replace(lines[1], "-accept 443", fmt.Sprintf("-accept 127.0.0.1:%d -quiet", port), 1))
	shown = exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // what the platform told
	shown.Dir, shown.Stdout, shown.Stderr = dir, log, log
	stdin, err := shown.StdinPipe() // s_server ends with its input
	require.NoError(t, err)
	require.NoError(t, shown.Start())
	mine := shown
	t.Cleanup(func() { _ = stdin.Close(); _ = mine.Process.Kill() })
	labtest.Eventually(ctx, t, func() (bool, string) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false, err.Error()
		}
		return true, fmt.Sprint(conn.Close())
	})
}
