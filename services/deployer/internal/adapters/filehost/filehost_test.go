package filehost

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

// version is a certificate with its key.
type version struct {
	chain       [][]byte
	key         []byte // PEM
	public      crypto.PublicKey
	fingerprint string
}

func issue(t testing.TB, n int64) version {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: "a.example"}, DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	sum := sha256.Sum256(der)
	return version{
		chain: [][]byte{der, der}, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), public: &key.PublicKey, fingerprint: hex.EncodeToString(sum[:]),
	}
}

func target(dir string) domain.FileTarget {
	return domain.FileTarget{
		Host: "local", CertificatePath: dir + "/cert.pem", ChainPath: dir + "/chain.pem", FullchainPath: dir + "/full.pem",
		KeyPath: dir + "/key.pem", BundlePath: dir + "/bundle.pem", Mode: "0644", KeyMode: "0600",
	}
}

func installation(t testing.TB, ft domain.FileTarget, v version, generation int64) Installation {
	t.Helper()
	files, err := ft.Files(v.chain)
	require.NoError(t, err)
	return Installation{Binding: "bnd_1", Generation: generation, Fingerprint: v.fingerprint, Files: files}
}

func host(dir string) *Host {
	return New("local", Config{AllowedRoots: []string{dir}, CommandTimeout: 10 * time.Second, Commands: map[string][]string{
		"fail":  {"/bin/sh", "-c", "echo some output; echo configuration is wrong >&2; exit 3"},
		"ok":    {"/bin/sh", "-c", "echo reloaded"},
		"hang":  {"/bin/sh", "-c", "echo begun; sleep 1000 & wait"},
		"gone":  {"/no/such/program"},
		"env":   {"/bin/sh", "-c", "env"},
		"a-key": {"/bin/sh", "-c", "cat " + dir + "/key.pem; exit 1"},
	}})
}

// content reads every file of a directory, leaving out what the host keeps for itself.
func content(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), previous) || e.IsDir() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		out[e.Name()] = string(raw)
	}
	return out
}

func wanted(v version) map[string]string {
	leaf, rest := string(domain.PEM(v.chain[:1])), string(domain.PEM(v.chain[1:]))
	return map[string]string{"cert.pem": leaf, "chain.pem": rest, "full.pem": leaf + rest, "key.pem": string(v.key), "bundle.pem": leaf + rest + string(v.key)}
}

func TestInstallAndRestore(t *testing.T) {
	dir := t.TempDir()
	h, one, two := host(dir), issue(t, 1), issue(t, 2)
	first, second := installation(t, target(dir), one, 1), installation(t, target(dir), two, 2)

	require.NoError(t, h.Install(t.Context(), first, one.key))
	require.Empty(t, cmp.Diff(wanted(one), content(t, dir)))
	for name, mode := range map[string]fs.FileMode{"cert.pem": 0o644, "full.pem": 0o644, "chain.pem": 0o644, "key.pem": 0o600, "bundle.pem": 0o600} {
		fi, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode(), name)
	}
	cur, err := h.Look(first, one.public)
	require.NoError(t, err)
	require.Equal(t, Current{Equal: true, Pending: true}, cur)
	require.NoError(t, h.Confirm(first))
	cur, err = h.Look(first, one.public)
	require.NoError(t, err)
	require.Equal(t, Current{Equal: true, Confirmed: true}, cur)
	cur, err = h.Look(second, two.public)
	require.NoError(t, err)
	require.Equal(t, Current{}, cur)
	_, restored, err := h.Restore(first)
	require.NoError(t, err)
	require.False(t, restored, "before the first there was nothing")
	require.Empty(t, cmp.Diff(wanted(one), content(t, dir)))

	require.NoError(t, os.Chmod(dir+"/key.pem", 0o640))
	require.NoError(t, h.Install(t.Context(), second, two.key))
	require.NoError(t, h.Install(t.Context(), second, two.key), "again changes nothing, the copies neither")
	require.Empty(t, cmp.Diff(wanted(two), content(t, dir)))
	for range 2 {
		previous, restored, err := h.Restore(second)
		require.NoError(t, err)
		require.True(t, restored)
		require.Equal(t, one.fingerprint, previous)
		require.Empty(t, cmp.Diff(wanted(one), content(t, dir)))
	}
	fi, err := os.Stat(dir + "/key.pem")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), fi.Mode(), "the mode comes back too")

	require.NoError(t, h.Install(t.Context(), second, two.key), "the next attempt of the same generation")
	require.NoError(t, h.Confirm(second))
	require.Empty(t, cmp.Diff(wanted(two), content(t, dir)))
}

func TestWhatWasNeverPutToUseIsNotGoneBackTo(t *testing.T) {
	dir := t.TempDir()
	h, good, bad, next := host(dir), issue(t, 1), issue(t, 2), issue(t, 3)
	require.NoError(t, h.Install(t.Context(), installation(t, target(dir), good, 1), good.key))
	require.NoError(t, h.Confirm(installation(t, target(dir), good, 1)))
	require.NoError(t, h.Install(t.Context(), installation(t, target(dir), bad, 2), bad.key)) // and superseded before it was seen to work
	last := installation(t, target(dir), next, 3)
	require.NoError(t, h.Install(t.Context(), last, next.key))
	previous, restored, err := h.Restore(last)
	require.NoError(t, err)
	require.True(t, restored)
	require.Equal(t, good.fingerprint, previous)
	require.Empty(t, cmp.Diff(wanted(good), content(t, dir)))
}

func TestFilesThatWereNotThereBeforeAreRemovedByARestore(t *testing.T) {
	dir := t.TempDir()
	h, old, v := host(dir), issue(t, 1), issue(t, 2)
	require.NoError(t, os.WriteFile(dir+"/full.pem", domain.PEM(old.chain), 0o644))
	in := installation(t, target(dir), v, 1)
	require.NoError(t, h.Install(t.Context(), in, v.key))
	previous, restored, err := h.Restore(in)
	require.NoError(t, err)
	require.True(t, restored)
	require.Equal(t, old.fingerprint, previous)
	require.Empty(t, cmp.Diff(map[string]string{"full.pem": string(domain.PEM(old.chain))}, content(t, dir)))
}

func TestLowerGenerationIsRefused(t *testing.T) {
	dir := t.TempDir()
	h, v := host(dir), issue(t, 1)
	require.NoError(t, h.Install(t.Context(), installation(t, target(dir), v, 5), v.key))
	before := content(t, dir)
	late := installation(t, target(dir), issue(t, 2), 4)
	err := h.Install(t.Context(), late, v.key)
	require.Equal(t, "DEPLOY_FENCED", errs.ReasonOf(err))
	require.Equal(t, "5", errs.As(err).Meta["generation"])
	_, _, err = h.Restore(late)
	require.Equal(t, "DEPLOY_FENCED", errs.ReasonOf(err))
	require.Equal(t, "DEPLOY_FENCED", errs.ReasonOf(h.Confirm(late)))
	require.Empty(t, cmp.Diff(before, content(t, dir)))
}

func TestTwoProcessesDoNotWorkOnTheSameFiles(t *testing.T) {
	dir := t.TempDir()
	h, v := host(dir), issue(t, 1)
	in := installation(t, target(dir), v, 1)
	w, err := h.begin(in)
	require.NoError(t, err)
	require.Equal(t, "DEPLOY_BUSY", errs.ReasonOf(h.Install(t.Context(), in, v.key)))
	w.end()
	require.NoError(t, h.Install(t.Context(), in, v.key))
}

func TestPathsAreRefused(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(root+"/sub", 0o755))
	require.NoError(t, os.Symlink(outside, root+"/out"))
	require.NoError(t, os.Symlink("sub", root+"/in"))
	require.NoError(t, os.Symlink(root+"/sub", root+"/in-absolute"))
	require.NoError(t, os.Symlink("nowhere", root+"/dangling"))
	require.NoError(t, os.WriteFile(outside+"/secret", []byte("s"), 0o600))
	require.NoError(t, os.Symlink(outside+"/secret", root+"/sub/link.pem"))
	h := host(root)
	tests := map[string]struct{ path, why string }{
		"a path below the root":                       {root + "/sub/x.pem", ""},
		"a path in the root itself":                   {root + "/x.pem", ""},
		"a link that stays inside":                    {root + "/in/x.pem", ""},
		"an absolute link that stays inside":          {root + "/in-absolute/x.pem", ""},
		"a directory that does not exist yet":         {root + "/new/deep/x.pem", ""},
		"a path outside":                              {outside + "/x.pem", "it lies outside"},
		"a way out by dots":                           {root + "/sub/../../x.pem", "it lies outside"},
		"a sibling with the same beginning":           {root + "x/x.pem", "it lies outside"},
		"a way out by a link":                         {root + "/out/x.pem", "a symbolic link leads out of the allowed directory"},
		"a way out by a link and a missing directory": {root + "/out/new/x.pem", "a symbolic link leads out of the allowed directory"},
		"a link that leads nowhere":                   {root + "/dangling/x.pem", "its directory cannot be looked at (a symbolic link leads nowhere)"},
	}
	v := issue(t, 1)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ft := domain.FileTarget{CertificatePath: tt.path, Mode: "0644", KeyMode: "0600"}
			err := h.Check(ft)
			if tt.why == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, "DEPLOY_PATH_NOT_ALLOWED", errs.ReasonOf(err))
			require.ErrorContains(t, err, tt.why)
			require.Empty(t, cmp.Diff([]errs.Field{{Name: "target.file.certificatePath", Msg: fmt.Sprintf("is %q; allowed are files below %s", tt.path, root)}}, errs.As(err).Fields))
			require.Equal(t, "DEPLOY_PATH_NOT_ALLOWED", errs.ReasonOf(h.Install(t.Context(), installation(t, ft, v, 1), nil)), "and again at the deployment")
		})
	}
	t.Run("a file that is a link is not followed", func(t *testing.T) {
		ft := domain.FileTarget{CertificatePath: root + "/sub/link.pem", Mode: "0644", KeyMode: "0600"}
		err := h.Install(t.Context(), installation(t, ft, v, 1), nil)
		require.ErrorContains(t, err, "is a symbolic link; name the file itself, or remove the link")
		raw, readErr := os.ReadFile(outside + "/secret")
		require.NoError(t, readErr)
		require.Equal(t, "s", string(raw))
	})
	t.Run("a directory that becomes a link after the look is not followed", func(t *testing.T) {
		ft := domain.FileTarget{CertificatePath: root + "/later/x.pem", Mode: "0644", KeyMode: "0600"}
		require.NoError(t, os.Mkdir(root+"/later", 0o755))
		places, err := h.places([]string{ft.CertificatePath})
		require.NoError(t, err)
		require.NoError(t, os.Remove(root+"/later"))
		require.NoError(t, os.Symlink(outside, root+"/later"))
		w := &work{files: files{roots: map[string]*os.Root{}}, places: places, bind: "bnd_1", unlock: func() {}}
		defer w.end()
		err = w.replace([]staged{{place: places[0], content: []byte("x"), mode: 0o644, uid: -1, gid: -1}})
		require.Equal(t, "DEPLOY_PATH_NOT_ALLOWED", errs.ReasonOf(err))
		require.NoFileExists(t, outside+"/x.pem")
	})
	t.Run("without roots nothing is allowed", func(t *testing.T) {
		err := New("local", Config{}).Check(domain.FileTarget{CertificatePath: "/etc/x.pem"})
		require.ErrorContains(t, err, "none (the host's configuration has no allowed_roots)")
	})
}

func TestDirectoryThatCannotBeWrittenIsNamed(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.WriteFile(root+"/file", nil, 0o600))
	v := issue(t, 1)
	tests := map[string]struct{ path, want string }{
		"one that does not exist": {root + "/missing/x.pem", fmt.Sprintf("the directory %q does not exist", root+"/missing")},
		"one that is a file":      {root + "/file/x.pem", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ft := domain.FileTarget{CertificatePath: tt.path, Mode: "0644", KeyMode: "0600"}
			err := host(root).Install(t.Context(), installation(t, ft, v, 1), nil)
			require.Contains(t, []string{"DEPLOY_DIR_NOT_WRITABLE", "DEPLOY_PATH_NOT_ALLOWED"}, errs.ReasonOf(err))
			require.ErrorContains(t, err, tt.want)
		})
	}
	t.Run("one without the right to", func(t *testing.T) {
		if os.Geteuid() == 0 { // root may write everywhere: the test runs once more as somebody who may not
			again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestDirectoryThatCannotBeWrittenIsNamed$/^one_without_the_right_to$", "-test.v")
			again.Dir, again.Env = "/", append(os.Environ(), "TMPDIR=/tmp")
			again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			said, err := again.CombinedOutput()
			require.NoError(t, err, string(said))
			require.Contains(t, string(said), "--- PASS: TestDirectoryThatCannotBeWrittenIsNamed/one_without_the_right_to")
			return
		}
		require.NoError(t, os.Mkdir(root+"/locked", 0o555))
		ft := domain.FileTarget{CertificatePath: root + "/locked/x.pem", Mode: "0644", KeyMode: "0600"}
		err := host(root).Install(t.Context(), installation(t, ft, v, 1), nil)
		require.Equal(t, "DEPLOY_DIR_NOT_WRITABLE", errs.ReasonOf(err))
	})
	err := notWritable(root, &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES})
	require.ErrorContains(t, err, fmt.Sprintf("the directory %q (mode d", root))
	require.ErrorContains(t, err, "cannot be written by the user "+user()+": permission denied")
}

func TestAnyTroubleLeavesTheFilesAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	h, one, two := host(dir), issue(t, 1), issue(t, 2)
	require.NoError(t, h.Install(t.Context(), installation(t, target(dir), one, 1), one.key))
	require.NoError(t, h.Confirm(installation(t, target(dir), one, 1)))
	ft := target(dir)
	ft.Owner = "no-such-user"
	err := h.Install(t.Context(), installation(t, ft, two, 2), two.key)
	require.Equal(t, "DEPLOY_OWNER_UNKNOWN", errs.ReasonOf(err))
	require.Empty(t, cmp.Diff(wanted(one), content(t, dir)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, "DEPLOY_TIMEOUT", errs.ReasonOf(h.Install(ctx, installation(t, target(dir), two, 2), two.key)))
	require.Empty(t, cmp.Diff(wanted(one), content(t, dir)))
}

func TestOwnerIsSet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	dir := t.TempDir()
	ft := target(dir)
	ft.Owner, ft.Group = "12345", "54321"
	v := issue(t, 1)
	require.NoError(t, host(dir).Install(t.Context(), installation(t, ft, v, 1), v.key))
	fi, err := os.Stat(dir + "/key.pem")
	require.NoError(t, err)
	uid, gid := owner(fi)
	require.Equal(t, []int{12345, 54321}, []int{uid, gid})

	v = issue(t, 2)
	require.NoError(t, host(dir).Install(t.Context(), installation(t, target(dir), v, 2), v.key))
	fi, err = os.Stat(dir + "/key.pem")
	require.NoError(t, err)
	uid, _ = owner(fi)
	require.Equal(t, 12345, uid, "an owner that is not given stays as it is")
}

// TestKilledAtEveryInstant kills a process at each named instant of an installation, and asserts that doing it again ends as if nothing had happened, and that the
// way back is the way to what was there before.
func TestKilledAtEveryInstant(t *testing.T) {
	if dir := os.Getenv("INSTALL_IN"); dir != "" {
		chain := [][]byte{mustRead(t, dir+"/next/leaf"), mustRead(t, dir+"/next/leaf")}
		key := mustRead(t, dir+"/next/key")
		v := version{chain: chain, key: key, fingerprint: "next"}
		require.NoError(t, host(dir).Install(t.Context(), installation(t, target(dir), v, 2), key))
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	run := func(dir string, env ...string) error {
		cmd := exec.Command(self, "-test.run=^TestKilledAtEveryInstant$")
		cmd.Env = append(os.Environ(), append(env, "INSTALL_IN="+dir)...)
		return cmd.Run()
	}
	old, next := issue(t, 1), issue(t, 2)
	next.fingerprint = "next"
	prepare := func() string {
		dir := t.TempDir()
		require.NoError(t, host(dir).Install(t.Context(), installation(t, target(dir), old, 1), old.key))
		require.NoError(t, host(dir).Confirm(installation(t, target(dir), old, 1)))
		require.NoError(t, os.Mkdir(dir+"/next", 0o700))
		require.NoError(t, os.WriteFile(dir+"/next/leaf", next.chain[0], 0o600))
		require.NoError(t, os.WriteFile(dir+"/next/key", next.key, 0o600))
		return dir
	}
	dir := prepare()
	require.NoError(t, run(dir, "CERTWRIGHT_FAILPOINT_LOG="+dir+"/log"))
	points := strings.Fields(string(mustRead(t, dir+"/log")))
	require.GreaterOrEqual(t, len(points), 12, "5 copies, the note, the mark, 5 files")
	count := map[string]int{}
	for _, name := range points {
		count[name]++
		instant := fmt.Sprintf("%s#%d", name, count[name])
		t.Run(instant, func(t *testing.T) {
			dir := prepare()
			require.Error(t, run(dir, "CERTWRIGHT_FAILPOINT_KILL="+instant))
			in := installation(t, target(dir), next, 2)
			for name, text := range content(t, dir) {
				require.Contains(t, []string{wanted(old)[name], wanted(next)[name]}, text, "no file is ever half written")
			}
			require.NoError(t, host(dir).Install(t.Context(), in, next.key))
			require.Empty(t, cmp.Diff(wanted(next), content(t, dir)))
			leftovers, err := filepath.Glob(dir + "/.*.certwright-new")
			require.NoError(t, err)
			require.Empty(t, leftovers)
			previous, restored, err := host(dir).Restore(in)
			require.NoError(t, err)
			require.True(t, restored)
			require.Equal(t, old.fingerprint, previous)
			require.Empty(t, cmp.Diff(wanted(old), content(t, dir)))
		})
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return raw
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	v := issue(t, 1)
	require.NoError(t, os.WriteFile(dir+"/key.pem", v.key, 0o600))
	tests := map[string]struct{ command, reason, msg string }{
		"one that succeeds":     {"ok", "", ""},
		"one that fails":        {"fail", "DEPLOY_RELOAD_FAILED", "the command \"fail\" on the host \"local\" ended with exit code 3; its output ends with: some output\nconfiguration is wrong"},
		"one that is not there": {"gone", "DEPLOY_RELOAD_FAILED", "could not be run: fork/exec /no/such/program: no such file or directory"},
		"one that is unknown":   {"rm", "DEPLOY_COMMAND_UNKNOWN", `the host "local" has no command "rm"; allowed are a-key, env, fail, gone, hang, ok`},
		"one that prints a key": {"a-key", "DEPLOY_RELOAD_FAILED", "its output ends with: [removed]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := host(dir).Reload(t.Context(), tt.command)
			if tt.reason == "" {
				require.NoError(t, err)
				require.Equal(t, "reloaded", out)
				return
			}
			require.Equal(t, tt.reason, errs.ReasonOf(err))
			require.ErrorContains(t, err, tt.msg)
			require.NotContains(t, err.Error(), strings.Split(string(v.key), "\n")[1])
		})
	}
	t.Run("one that hangs is killed with what it started", func(t *testing.T) {
		h := host(dir)
		h.cfg.CommandTimeout = 300 * time.Millisecond
		out, err := h.Reload(t.Context(), "hang")
		require.Equal(t, "DEPLOY_RELOAD_TIMEOUT", errs.ReasonOf(err))
		require.ErrorContains(t, err, "was killed after 300ms; its output ends with: begun")
		require.Equal(t, "begun", out)
	})
	t.Run("the service's environment stays with the service", func(t *testing.T) {
		t.Setenv("CERTWRIGHT_SECRET", "do-not-show")
		out, err := host(dir).Reload(t.Context(), "env")
		require.NoError(t, err)
		require.NotContains(t, out, "do-not-show")
	})
	t.Run("an unknown command is refused at the door", func(t *testing.T) {
		err := host(dir).Check(domain.FileTarget{CertificatePath: dir + "/x.pem", Reload: "rm -rf"})
		require.Equal(t, "DEPLOY_COMMAND_UNKNOWN", errs.ReasonOf(err))
		require.Empty(t, cmp.Diff([]errs.Field{{Name: "target.file.reload", Msg: `is "rm -rf"; allowed are a-key, env, fail, gone, hang, ok`}}, errs.As(err).Fields))
	})
}

func TestRedact(t *testing.T) {
	key := string(issue(t, 1).key)
	lines := strings.Split(strings.TrimSpace(key), "\n")
	tests := map[string]struct{ in, want string }{
		"plain words stay":                  {"nginx: configuration ok\n", "nginx: configuration ok"},
		"a key goes":                        {"before\n" + key + "after", "before\n[removed]\nafter"},
		"a key whose beginning is cut goes": {strings.Join(lines[2:], "\n") + "\nafter", "[removed]\nafter"},
		"a key whose end is cut goes":       {"before\n" + strings.Join(lines[:2], "\n"), "before\n[removed]"},
		"the line of a key goes":            {lines[1], "[removed]"},
		"control characters go":             {"a\x1b[31mb\x00", "a[31mb"},
		"only the end is shown":             {strings.Repeat("word ", 2000), strings.TrimSpace(strings.Repeat("word ", 2000)[10000-tailShown:])},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, tt.want, Redact([]byte(tt.in))) })
	}
	var out tail
	for range 100 {
		_, _ = out.Write(slices.Repeat([]byte("x"), 1000))
	}
	require.Len(t, out.text(), tailKept)
}

func FuzzRedact(f *testing.F) {
	f.Add("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----")
	f.Fuzz(func(t *testing.T, s string) {
		out := Redact([]byte(s + "-----BEGIN EC PRIVATE KEY-----\nSECRETSECRET\n-----END EC PRIVATE KEY-----\n"))
		require.NotContains(t, out, "SECRETSECRET")
		require.LessOrEqual(t, len(out), tailShown)
	})
}
