package dnstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/testkit"
)

// BIND runs Debian's BIND 9 with the zone example.org from a private directory until the test ends, and returns its address. It takes the key, and knows a key "weak"
// of the same secret that may change nothing.
func BIND(t testing.TB) string {
	t.Helper()
	named := testkit.RequireBinary(t, "named", "bind9")
	dir := t.TempDir()
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "zone"), []byte("$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"), 0o600))
	conf := fmt.Sprintf(`options { directory %[1]q; managed-keys-directory %[1]q; pid-file "named.pid"; session-keyfile "session.key"; lock-file none;
	listen-on port %[2]s { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; empty-zones-enable no; notify no; };
controls { };
key %[3]q { algorithm hmac-sha256; secret %[4]q; };
key "weak" { algorithm hmac-sha256; secret %[4]q; };
zone "example.org" { type primary; file "zone"; update-policy { grant %[3]s zonesub TXT; }; };
`, dir, port, KeyName, Secret)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "named.conf"), []byte(conf), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.Command(named, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf")) //nolint:gosec // a fixed program
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("named: %s", text)
		}
	})
	testkit.Eventually(t, func() bool {
		m := new(mdns.Msg)
		m.SetQuestion("example.org.", mdns.TypeSOA)
		c := &mdns.Client{Net: "tcp", Timeout: time.Second}
		answer, _, err := c.Exchange(m, addr)
		return err == nil && len(answer.Answer) == 1
	}, "named answers")
	return addr
}

// TXT asks a server for the values at a name, sorted.
func TXT(t testing.TB, addr, name string) []string {
	t.Helper()
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(name), mdns.TypeTXT)
	answer, _, err := (&mdns.Client{Net: "tcp", Timeout: 5 * time.Second}).Exchange(m, addr)
	require.NoError(t, err)
	values := []string{}
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*mdns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(values)
	return values
}
