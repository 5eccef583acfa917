//go:build unix

package filehost

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	osuser "os/user"
	"strconv"
	"syscall"

	"github.com/certwright/certwright/shared/errs"
)

// lock takes the lock of an open file without waiting. Closing the file, also by the end of the process, gives it back.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// group gives the command a process group of its own, and kills all of it at the deadline.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
}

func owner(fi fs.FileInfo) (uid, gid int) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

// owned reports whether the file already belongs to them.
func owned(f *os.File, uid, gid int) bool {
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	u, g := owner(fi)
	return (uid < 0 || uid == u) && (gid < 0 || gid == g)
}

func syncDir(f *os.File) error { return f.Sync() }

// user names the user that this process is.
func user() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := osuser.LookupId(id); err == nil {
		return strconv.Quote(u.Username) + " (" + id + ")"
	}
	return id
}

// ids looks up user and group, names or numbers; -1 for those that are empty. Precondition DEPLOY_OWNER_UNKNOWN.
func ids(name, groupName string) (uid, gid int, err error) {
	uid, gid = -1, -1
	if name != "" {
		uid, err = number(name, func(n string) (string, error) {
			u, err := osuser.Lookup(n)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if err != nil {
			return 0, 0, errs.New(errs.Precondition, "DEPLOY_OWNER_UNKNOWN", "the host has no user %q", name)
		}
	}
	if groupName != "" {
		gid, err = number(groupName, func(n string) (string, error) {
			g, err := osuser.LookupGroup(n)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if err != nil {
			return 0, 0, errs.New(errs.Precondition, "DEPLOY_OWNER_UNKNOWN", "the host has no group %q", groupName)
		}
	}
	return uid, gid, nil
}

func number(name string, lookup func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	id, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}
