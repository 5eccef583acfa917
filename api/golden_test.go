package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/certwright/certwright/api/events"
)

// go test ./api -run Golden -add-golden writes the files that are missing. It never touches one that exists: what was published once may still
// be on a stream or in a subscriber's archive.
var addGolden = flag.Bool("add-golden", false, "write golden files of events that have none for their fields of now")

const goldenDir = "testdata/events"

// goldenFiles answers the golden files of an event type, oldest first: <type>.v1.json, and <type>.v1.2.json, … for the fields added later.
func goldenFiles(t *testing.T, typ string) []string {
	t.Helper()
	var files []string
	for n := 1; ; n++ {
		path := goldenPath(typ, n)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return files
		} else {
			require.NoError(t, err)
		}
		files = append(files, path)
	}
}

func goldenPath(typ string, n int) string {
	name := typ + ".v1.json"
	if n > 1 {
		name = fmt.Sprintf("%s.v1.%d.json", typ, n)
	}
	return filepath.Join(goldenDir, name)
}

func TestGoldenEvents(t *testing.T) {
	for _, typ := range events.Types() {
		t.Run(typ, func(t *testing.T) {
			m, ok := events.New(typ)
			require.True(t, ok)
			fill(m.ProtoReflect(), 0)
			now := canonical(t, m)
			files := goldenFiles(t, typ)
			covered := false
			for _, file := range files {
				raw, err := os.ReadFile(file)
				require.NoError(t, err)
				covered = covered || bytes.Equal(raw, now)
			}
			if !covered && *addGolden {
				require.NoError(t, os.MkdirAll(goldenDir, 0o755))
				path := goldenPath(typ, len(files)+1)
				require.NoError(t, os.WriteFile(path, now, 0o644))
				files, covered = append(files, path), true
			}
			require.True(t, covered, "no golden file has all the fields of now: run \"go test ./api -run Golden -add-golden\" and commit the new file")

			for _, file := range files {
				raw, err := os.ReadFile(file)
				require.NoError(t, err)
				decoded, _ := events.New(typ)
				require.NoError(t, protojson.Unmarshal(raw, decoded), "%s does not decode any more", file)
				require.Empty(t, cmp.Diff(string(raw), string(canonical(t, decoded))), "%s loses something", file)
			}
		})
	}
}

func TestEveryGoldenFileIsOfAKnownEvent(t *testing.T) {
	known := map[string]bool{}
	for _, typ := range events.Types() {
		for _, f := range goldenFiles(t, typ) {
			known[f] = true
		}
	}
	found, err := filepath.Glob(goldenDir + "/*")
	require.NoError(t, err)
	require.NotEmpty(t, found)
	for _, f := range found {
		require.True(t, known[f], "%s: an event that was published once has gone", f)
	}
}

func TestReadersIgnoreFieldsTheyDoNotKnow(t *testing.T) {
	for _, typ := range events.Types() {
		m, _ := events.New(typ)
		require.NoError(t, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(`{"aFieldOfTomorrow": {"x": [1]}}`), m))
	}
}

// canonical answers m as protobuf JSON with sorted keys and two spaces, which protojson alone does not promise.
func canonical(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := protojson.Marshal(m)
	require.NoError(t, err)
	var value any
	require.NoError(t, json.Unmarshal(raw, &value))
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(value))
	return b.Bytes()
}

// maxDepth is deeper than any message of ours nests, so that one that holds itself ends.
const maxDepth = 6

// fill gives every field of m a value that is not its default and differs from its neighbours'.
func fill(m protoreflect.Message, depth int) {
	if depth > maxDepth {
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			v := m.NewField(f)
			key := scalar(f.MapKey(), 1).MapKey()
			if f.MapValue().Message() != nil {
				fill(v.Map().Mutable(key).Message(), depth+1)
			} else {
				v.Map().Set(key, scalar(f.MapValue(), 1))
			}
			m.Set(f, v)
		case f.IsList():
			v := m.NewField(f)
			for n := range 2 {
				if f.Message() != nil {
					fill(v.List().AppendMutable().Message(), depth+1)
				} else {
					v.List().Append(scalar(f, n+1))
				}
			}
			m.Set(f, v)
		case f.Message() != nil:
			switch f.Message().FullName() {
			case "google.protobuf.Timestamp", "google.protobuf.Duration":
				v := m.NewField(f)
				inner := v.Message()
				// 2026-01-02T03:04:05.006Z, and a second more for each field; as a duration it is as good as any.
				inner.Set(inner.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(1767323045+int64(f.Number())))
				inner.Set(inner.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(6_000_000))
				m.Set(f, v)
			default:
				v := m.NewField(f)
				fill(v.Message(), depth+1)
				m.Set(f, v)
			}
		default:
			m.Set(f, scalar(f, 1))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, n int) protoreflect.Value {
	number := int64(f.Number())*10 + int64(n)
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s %d", f.Name(), n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(f.Number()), byte(n), 0xff})
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(number))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(number) + 0.5)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(number) + 0.5)
	default:
		return protoreflect.ValueOfInt64(number)
	}
}
