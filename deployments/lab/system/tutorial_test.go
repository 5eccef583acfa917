package system_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// The commands of docs/tutorial.md are run as they stand there, against the stage's servers in place of the reader's.
func TestTheTutorialWorks(t *testing.T) {
	ctx := labtest.Deadline(t, 5*time.Minute)
	page, err := os.ReadFile("../../../docs/tutorial.md")
	require.NoError(t, err)
	dir := t.TempDir()
	s, err := stage.Start(ctx, stage.Options{Dir: dir, CA: ca.Options{Strict: true}, Without: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	edge, data := labtest.Port(t), filepath.Join(dir, "data")
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	roots, mailRoots := write("ca.pem", s.CA.TLSRootPEM()), write("mail.pem", s.Mail.RootPEM())
	write("tsig.secret", []byte(s.Key.Secret))
	here := strings.NewReplacer(
		"/var/lib/certwright", data,
		`https: ":8443"`, fmt.Sprintf(`https: "127.0.0.1:%d"`, edge),
		"https://localhost:8443", fmt.Sprintf("https://localhost:%d", edge),
		`listen: ":80"`, fmt.Sprintf(`listen: "127.0.0.1:%d"`, s.HTTP01Port),
		"[/usr/sbin/nginx, -s, reload]", fmt.Sprintf("[%s, reload, %q]", labtest.Sitectl(t), s.Site.ControlAddr()),
		"/etc/nginx/tls", filepath.Dir(s.SiteCert),
		"https://acme-staging-v02.api.letsencrypt.org/directory", s.CA.DirectoryURL()+" --trust-roots "+roots,
		"127.0.0.1:443", s.Site.Addr(),
		"ns1.example.org:53", s.DNS.Addr(), "--tsig-key-name acme.", "--tsig-key-name "+s.Key.Name,
		"mail.example.org:25", s.Mail.Addr()+" --trust-roots "+mailRoots,
		"example.org", stage.Zone,
	)
	blocks := func(kind string) (out []string) {
		for _, m := range regexp.MustCompile("(?ms)^```"+kind+"\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
			out = append(out, here.Replace(m[1]))
		}
		return out
	}

	configs := blocks("yaml")
	require.Len(t, configs, 1)
	program := binary(t)
	proc := &platform.Process{
		Binary: program, Dir: data, Edge: fmt.Sprintf("https://localhost:%d", edge),
		Config: write("certwright.yaml", []byte(configs[0])),
	}
	t.Cleanup(func() { _ = proc.Close() })
	require.NoError(t, proc.Start(ctx))

	var said string
	commands := 0
	for _, block := range blocks("sh") {
		for line := range strings.Lines(block) {
			commands++
			c := exec.CommandContext(ctx, "sh", "-euc", line)
			c.Dir = dir
			c.Env = []string{"HOME=" + dir, "PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH")}
			out, err := c.CombinedOutput()
			require.NoError(t, err, "%s\n%s", line, out)
			said += string(out)
		}
	}
	require.Greater(t, commands, 15)
	require.Contains(t, said, "www."+stage.Zone)
	require.FileExists(t, s.SiteKey)
	require.FileExists(t, filepath.Join(dir, "wildcard", "privkey.pem"))
	mails, err := s.Mail.Wait(ctx, 1)
	require.NoError(t, err)
	require.NotEmpty(t, mails)
	require.GreaterOrEqual(t, len(s.CA.Orders()), 3, "www, its renewal and the wildcard")
	require.NoError(t, proc.Stop(ctx))
}
