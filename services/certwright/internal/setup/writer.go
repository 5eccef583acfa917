package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certwright/certwright/shared/errs"
)

// writer puts files into the installation's directory, readable by their owner alone, and remembers what it did.
type writer struct {
	Result
	dir      string
	uid, gid int // -1: as they come
}

func (w *writer) warn(format string, args ...any) {
	w.Warnings = append(w.Warnings, fmt.Sprintf(format, args...))
}

// top makes the installation's directory. Where root makes it for another user, that user may pass through it, and read nothing in it.
func (w *writer) top() error {
	_, err := os.Stat(w.dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := w.directory(".", false); err != nil || !fresh || w.uid <= 0 || os.Geteuid() != 0 {
		return err
	}
	return os.Chmod(w.dir, 0o711) //nolint:gosec // to be passed through
}

// directory makes a directory; a party's own belongs to the owner.
func (w *writer) directory(name string, owned bool) error {
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return unusable(path, err)
	}
	if owned {
		return w.own(path)
	}
	return nil
}

func (w *writer) own(path string) error {
	if w.uid < 0 || os.Geteuid() != 0 {
		return nil
	}
	if err := os.Chown(path, w.uid, w.gid); err != nil {
		return unusable(path, err)
	}
	return nil
}

// read returns a file's content; nil when it is not there.
func (w *writer) read(name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable(name, err)
	}
	return text, nil
}

// keep makes the file unless it is there.
func (w *writer) keep(name string, content func() ([]byte, error)) error {
	there, err := w.read(name)
	if err != nil {
		return err
	}
	if there != nil {
		w.Kept = append(w.Kept, name)
		return nil
	}
	text, err := content()
	if err != nil {
		return err
	}
	return w.put(name, text, &w.Made)
}

// follow writes a file that follows from the others whenever it has to differ.
func (w *writer) follow(name string, text []byte) error {
	there, err := w.read(name)
	switch {
	case err != nil:
		return err
	case there == nil:
		return w.put(name, text, &w.Made)
	case string(there) == string(text):
		w.Kept = append(w.Kept, name)
		return nil
	}
	return w.put(name, text, &w.Renewed)
}

// put writes whole and durably: a crash leaves the old file or the new one.
func (w *writer) put(name string, text []byte, done *[]string) (err error) {
	path := filepath.Join(w.dir, name)
	f, err := os.CreateTemp(filepath.Dir(path), ".new-") // mode 0600
	if err != nil {
		return unusable(path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return unusable(path, err)
	}
	if filepath.Dir(name) != caDir {
		if err := w.own(f.Name()); err != nil {
			return err
		}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return unusable(path, err)
	}
	*done = append(*done, name)
	return nil
}

func unusable(path string, err error) error {
	return errs.New(errs.Precondition, "INIT_FILES_UNUSABLE", "%s cannot be used: %w", path, err)
}
