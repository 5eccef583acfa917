package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// Profile gets one round of certificates through the platform and writes cpu.pprof, block.pprof, mutex.pprof and allocs.pprof to dir.
func (b *Bench) Profile(ctx context.Context, dir string, concurrency int, p Plan) (err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof")) //nolint:gosec // the caller names it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	runtime.SetBlockProfileRate(10_000) // ns
	runtime.SetMutexProfileFraction(10)
	defer runtime.SetBlockProfileRate(0)
	defer runtime.SetMutexProfileFraction(0)
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	err = b.round(ctx, &Series{}, b.ByPlatform, "", p.certificates(concurrency), concurrency)
	pprof.StopCPUProfile()
	for _, name := range []string{"block", "mutex", "allocs"} {
		f, createErr := os.Create(filepath.Join(dir, name+".pprof")) //nolint:gosec // the caller names it
		if createErr != nil {
			return errors.Join(err, createErr)
		}
		err = errors.Join(err, pprof.Lookup(name).WriteTo(f, 0), f.Close())
	}
	return err
}
