//go:build !unix

package filehost

import (
	"io/fs"
	"os"
	"os/exec"
	osuser "os/user"

	"github.com/certwright/certwright/shared/errs"
)

// lock does nothing here: one process per host is expected where files cannot be locked.
func lock(*os.File) error { return nil }

// group leaves it at killing the command itself.
func group(*exec.Cmd) {}

func owner(fs.FileInfo) (uid, gid int) { return -1, -1 }

func owned(*os.File, int, int) bool { return false }

func syncDir(*os.File) error { return nil }

func user() string {
	if u, err := osuser.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

func ids(name, groupName string) (uid, gid int, err error) {
	if name != "" || groupName != "" {
		return 0, 0, errs.New(errs.Precondition, "DEPLOY_OWNER_UNKNOWN", "owner and group cannot be set on this operating system; leave them out")
	}
	return -1, -1, nil
}
