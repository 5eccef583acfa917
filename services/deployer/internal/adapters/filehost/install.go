package filehost

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/failpoint"
)

const (
	prefix   = ".certwright-"
	previous = ".certwright-prev"
	maxFile  = 4 << 20 // bytes; no certificate file is larger
)

// Installation is what is to be on the host.
type Installation struct {
	Binding     string
	Generation  int64
	Fingerprint string // hex SHA-256 of the leaf
	Files       []domain.File
}

// Current is what is on the host.
type Current struct {
	Equal     bool // every file is as wanted
	Confirmed bool // and has been read by the host's server, as this service knows
	Pending   bool // and was written by this generation, but not confirmed
}

// note is kept beside the first file.
type note struct {
	Binding     string    `json:"binding"`
	Generation  int64     `json:"generation"`
	Fingerprint string    `json:"fingerprint"`
	Confirmed   bool      `json:"confirmed"` // the installed files were put to use
	Snapshot    *snapshot `json:"snapshot,omitempty"`
}

// snapshot is what was there before a generation was installed.
type snapshot struct {
	Generation  int64      `json:"generation"`
	Fingerprint string     `json:"fingerprint"` // empty: unknown
	Files       []snapFile `json:"files"`
	Restored    bool       `json:"restored"`
}

type snapFile struct {
	Path   string `json:"path"`
	Exists bool   `json:"exists"`
}

func (s *snapshot) empty() bool {
	return s == nil || !slices.ContainsFunc(s.Files, func(f snapFile) bool { return f.Exists })
}

// work is one piece of work under the binding's lock.
type work struct {
	files
	places []place
	note   note
	unlock func()
	bind   string
}

// begin locks the binding's files on this host and reads the note. Unavailable DEPLOY_BUSY when another process works on them; Precondition
// DEPLOY_FENCED (Meta "generation") when a later generation was there.
func (h *Host) begin(in Installation) (_ *work, err error) {
	paths := make([]string, len(in.Files))
	for i, f := range in.Files {
		paths[i] = f.Path
	}
	places, err := h.places(paths)
	if err != nil {
		return nil, err
	}
	w := &work{files: files{roots: map[string]*os.Root{}}, places: places, bind: in.Binding, unlock: func() {}}
	defer func() {
		if err != nil {
			w.end()
		}
	}()
	root, err := w.root(places[0])
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(w.beside(".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, places[0].notWritable(err)
	}
	w.unlock = func() { _ = f.Close() } // which ends the lock
	if err := lock(f); err != nil {
		return nil, errs.New(errs.Unavailable, "DEPLOY_BUSY", "another process works on the files of %s right now", in.Binding)
	}
	if err := w.readNote(root); err != nil {
		return nil, err
	}
	if w.note.Generation > in.Generation {
		return nil, errs.New(errs.Precondition, "DEPLOY_FENCED", "the host has generation %d of %s, which is later than %d", w.note.Generation, in.Binding, in.Generation).
			WithMeta("generation", strconv.FormatInt(w.note.Generation, 10))
	}
	return w, nil
}

func (w *work) end() {
	w.unlock()
	w.close()
}

func (w *work) beside(suffix string) string {
	return filepath.Join(w.places[0].dir(), prefix+w.bind+suffix)
}

func (w *work) readNote(root *os.Root) error {
	raw, err := root.ReadFile(w.beside(".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return w.places[0].notWritable(err)
	}
	if err := json.Unmarshal(raw, &w.note); err != nil || w.note.Binding != w.bind {
		w.note = note{} // written by nobody we know: as if it were not there
	}
	return nil
}

func (w *work) writeNote() error {
	raw, err := json.Marshal(w.note)
	if err != nil {
		return err
	}
	p := w.places[0]
	p.rel = w.beside(".json")
	p.path = filepath.Join(p.root, p.rel)
	if err := w.replace([]staged{{place: p, content: raw, mode: 0o600, uid: -1, gid: -1}}); err != nil {
		return err
	}
	return w.sync([]place{p})
}

// Look compares what is on the host with what is wanted. Keys are compared by their public half, so none has to be asked for.
func (h *Host) Look(in Installation, public crypto.PublicKey) (Current, error) {
	w, err := h.begin(in)
	if err != nil {
		return Current{}, err
	}
	defer w.end()
	for i, f := range in.Files {
		same, err := w.same(w.places[i], f, public)
		if err != nil || !same {
			return Current{}, err
		}
	}
	mine := w.note.Fingerprint == in.Fingerprint
	return Current{
		Equal: true, Confirmed: mine && w.note.Confirmed, Pending: w.note.Generation == in.Generation && !w.note.Confirmed,
	}, nil
}

func (w *work) same(p place, f domain.File, public crypto.PublicKey) (bool, error) {
	old, err := w.read(p)
	if err != nil || old == nil {
		return false, err
	}
	defer clear(old.content)
	uid, gid, err := ids(f.Owner, f.Group)
	if err != nil {
		return false, err
	}
	rest, ok := bytes.CutPrefix(old.content, f.Public)
	if !ok || old.mode != f.Mode || uid >= 0 && uid != old.uid || gid >= 0 && gid != old.gid {
		return false, nil
	}
	if !f.WithKey {
		return len(rest) == 0, nil
	}
	block, after := pem.Decode(rest)
	if block == nil || len(after) > 0 {
		return false, nil
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return false, nil //nolint:nilerr // another key file than ours would be
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false, nil
	}
	equal, ok := signer.Public().(interface{ Equal(x crypto.PublicKey) bool })
	return ok && equal.Equal(public), nil
}

// Install writes the files: all beside their places, with owner and mode, then each into its place. key is PEM and is written where a file wants it.
// Doing it again after a crash, wherever it was, ends in the same.
func (h *Host) Install(ctx context.Context, in Installation, key []byte) error {
	w, err := h.begin(in)
	if err != nil {
		return err
	}
	defer w.end()
	if err := w.snapshot(in); err != nil {
		return err
	}
	failpoint.Hit("call.host.install.snapshot")
	all := make([]staged, len(in.Files))
	for i, f := range in.Files {
		s := staged{place: w.places[i], content: f.Public, mode: f.Mode}
		if s.uid, s.gid, err = ids(f.Owner, f.Group); err != nil {
			return err
		}
		if old, err := w.look(w.places[i]); err != nil {
			return err
		} else if old != nil { // an owner that is not given stays as it is
			if s.uid < 0 {
				s.uid = old.uid
			}
			if s.gid < 0 {
				s.gid = old.gid
			}
		}
		if f.WithKey {
			s.content = slices.Concat(f.Public, key)
			defer clear(s.content)
		}
		all[i] = s
	}
	if ctx.Err() != nil {
		return errs.New(errs.Timeout, "DEPLOY_TIMEOUT", "installing was ended before files were replaced")
	}
	if err := w.replace(all); err != nil {
		return err
	}
	return w.sync(w.places)
}

// snapshot keeps what is there, once per state that was put to use: an installation that never was is not worth going back to.
func (w *work) snapshot(in Installation) error {
	if s := w.note.Snapshot; s != nil && !w.note.Confirmed {
		s.Generation, s.Restored = in.Generation, false
	} else {
		s = &snapshot{Generation: in.Generation}
		var copies []staged
		for i, p := range w.places {
			old, err := w.read(p)
			if err != nil {
				return err
			}
			s.Files = append(s.Files, snapFile{Path: p.path, Exists: old != nil})
			if old == nil {
				continue
			}
			defer clear(old.content)
			if in.Files[i].Certificate && s.Fingerprint == "" {
				s.Fingerprint = fingerprint(old.content)
			}
			old.place.rel += previous
			old.place.path += previous
			copies = append(copies, *old)
		}
		if err := w.replace(copies); err != nil {
			return err
		}
		if err := w.sync(w.places); err != nil {
			return err
		}
		w.note.Snapshot = s
	}
	w.note.Binding, w.note.Generation, w.note.Fingerprint, w.note.Confirmed = w.bind, in.Generation, in.Fingerprint, false
	return w.writeNote()
}

// Confirm notes that the files of this generation were put to use.
func (h *Host) Confirm(in Installation) error {
	w, err := h.begin(in)
	if err != nil {
		return err
	}
	defer w.end()
	if w.note.Generation == in.Generation && w.note.Confirmed {
		return nil
	}
	w.note.Binding, w.note.Generation, w.note.Fingerprint, w.note.Confirmed = w.bind, in.Generation, in.Fingerprint, true
	return w.writeNote()
}

// Restore puts back what was there before this generation, and answers the fingerprint of that certificate (empty: unknown). restored is false when nothing
// was there: then nothing is touched. Doing it again changes nothing.
func (h *Host) Restore(in Installation) (fingerprint string, restored bool, err error) {
	w, err := h.begin(in)
	if err != nil {
		return "", false, err
	}
	defer w.end()
	s := w.note.Snapshot
	if s.empty() || w.note.Generation != in.Generation || s.Generation != in.Generation {
		return "", false, nil
	}
	if s.Restored {
		return s.Fingerprint, true, nil
	}
	var back []staged
	var gone []place
	for _, f := range s.Files {
		i := slices.IndexFunc(w.places, func(p place) bool { return p.path == f.Path })
		if i < 0 {
			continue
		}
		p := w.places[i]
		if !f.Exists {
			gone = append(gone, p)
			continue
		}
		copied := p
		copied.rel += previous
		old, err := w.read(copied)
		if err != nil {
			return "", false, err
		}
		if old == nil {
			return "", false, errs.New(errs.Precondition, "DEPLOY_SNAPSHOT_GONE", "the copy %q of the file before is gone; nothing was put back", f.Path+previous)
		}
		defer clear(old.content)
		old.place = p
		back = append(back, *old)
	}
	if err := w.replace(back); err != nil {
		return "", false, err
	}
	for _, p := range gone {
		root, err := w.root(p)
		if err == nil {
			err = root.Remove(p.rel)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", false, p.notWritable(err)
		}
	}
	if err := w.sync(w.places); err != nil {
		return "", false, err
	}
	s.Restored, w.note.Confirmed, w.note.Fingerprint = true, true, s.Fingerprint
	return s.Fingerprint, true, w.writeNote()
}

// staged is a file to be written.
type staged struct {
	place    place
	content  []byte
	mode     fs.FileMode
	uid, gid int // -1: as the process
}

// replace writes all files beside their places, and then each into its place.
func (w *work) replace(all []staged) (err error) {
	tmp := func(s staged) string {
		return filepath.Join(s.place.dir(), "."+filepath.Base(s.place.rel)+".certwright-new")
	}
	defer func() {
		if err == nil {
			return
		}
		for _, s := range all {
			if root, rootErr := w.root(s.place); rootErr == nil {
				_ = root.Remove(tmp(s))
			}
		}
	}()
	for _, s := range all {
		root, err := w.root(s.place)
		if err != nil {
			return err
		}
		if err := root.Remove(tmp(s)); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a crash
			return s.place.notWritable(err)
		}
		if err := s.write(root, tmp(s)); err != nil {
			return err
		}
	}
	for _, s := range all {
		root, err := w.root(s.place)
		if err != nil {
			return err
		}
		if err := root.Rename(tmp(s), s.place.rel); err != nil {
			return s.place.notWritable(err)
		}
		failpoint.Hit("call.host.install.renamed")
	}
	return nil
}

// write makes the file with nobody else able to read it, and gives it owner and mode before anybody can find it under its name.
func (s staged) write(root *os.Root, name string) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return s.place.notWritable(err)
	}
	defer func() { _ = f.Close() }()
	if s.uid >= 0 || s.gid >= 0 {
		if err := f.Chown(s.uid, s.gid); err != nil && !owned(f, s.uid, s.gid) {
			return errs.New(errs.Precondition, "DEPLOY_OWNER_REFUSED", "the user %s may not give the file %q to owner %d and group %d; run the deployer as a user who may, or leave owner and group out",
				user(), s.place.path, s.uid, s.gid)
		}
	}
	err = f.Chmod(s.mode)
	if err == nil {
		_, err = f.Write(s.content)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errs.New(errs.Precondition, "DEPLOY_WRITE_FAILED", "the file %q cannot be written: %s", s.place.path, reason(err))
	}
	return nil
}

func (w *work) sync(places []place) error {
	for _, d := range dirs(places) {
		root, err := w.root(d)
		if err != nil {
			return err
		}
		f, err := root.Open(d.rel)
		if err == nil {
			err = errors.Join(syncDir(f), f.Close())
		}
		if err != nil {
			return notWritable(filepath.Join(d.root, d.rel), err)
		}
	}
	return nil
}

// look answers owner and mode of what is at p; nil when nothing is. Anything but a regular file is refused.
func (w *work) look(p place) (*staged, error) {
	root, err := w.root(p)
	if err != nil {
		return nil, err
	}
	fi, err := root.Lstat(p.rel)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, dirErr := root.Stat(p.dir()); dirErr != nil {
			return nil, p.notWritable(dirErr)
		}
		return nil, nil
	case err != nil:
		return nil, p.notWritable(err)
	case fi.Mode()&fs.ModeSymlink != 0:
		return nil, errs.New(errs.Invalid, "DEPLOY_PATH_NOT_ALLOWED", "%q is a symbolic link; name the file itself, or remove the link", p.path)
	case !fi.Mode().IsRegular():
		return nil, errs.New(errs.Invalid, "DEPLOY_PATH_NOT_ALLOWED", "%q is no regular file (%s); name a file", p.path, fi.Mode())
	}
	uid, gid := owner(fi)
	return &staged{place: p, mode: fi.Mode().Perm(), uid: uid, gid: gid}, nil
}

func (w *work) read(p place) (*staged, error) {
	s, err := w.look(p)
	if s == nil || err != nil {
		return nil, err
	}
	root, err := w.root(p)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(p.rel)
	if err != nil {
		return nil, errs.New(errs.Precondition, "DEPLOY_READ_FAILED", "the file %q, which is there already, cannot be read by the user %s: %s", p.path, user(), reason(err))
	}
	defer func() { _ = f.Close() }()
	s.content, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil || len(s.content) > maxFile {
		return nil, errs.New(errs.Precondition, "DEPLOY_READ_FAILED", "the file %q, which is there already, cannot be read or is larger than %d bytes", p.path, maxFile)
	}
	return s, nil
}

// fingerprint is that of the first certificate in PEM text, or empty.
func fingerprint(text []byte) string {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			sum := sha256.Sum256(block.Bytes)
			return hex.EncodeToString(sum[:])
		}
	}
	return ""
}
