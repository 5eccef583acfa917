package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/certwright/certwright/shared/errs"
)

// maxBody is the limit of a request's body, in bytes: 1 MiB.
const maxBody = 1 << 20

// maxDrain is how much of a body that is too large is read and dropped, so that a client that sends before it reads gets to see the answer.
const maxDrain = 16 << 20

var (
	errTooLarge  = errs.New(errs.Invalid, "BODY_TOO_LARGE", "the body is larger than the limit of 1 MiB (%d bytes)", maxBody)
	errMediaType = errs.New(errs.Invalid, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON: send it with the header Content-Type: application/json, and without a Content-Encoding")
)

// readBody reads a JSON body. It returns the HTTP status of a refusal beside the error, or zero for that of the error's kind.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, int, error) {
	if r.ContentLength <= maxBody {
		body, err := io.ReadAll(http.MaxBytesReader(w, io.NopCloser(r.Body), maxBody))
		var large *http.MaxBytesError
		switch {
		case err == nil:
			return checkBody(r.Header, body)
		case !errors.As(err, &large):
			return nil, 0, errs.New(errs.Invalid, "BODY_UNREADABLE", "the body ended early or came too slowly")
		}
	}
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
	}
	return nil, http.StatusRequestEntityTooLarge, errTooLarge
}

func checkBody(h http.Header, body []byte) ([]byte, int, error) {
	body = bytes.TrimSpace(body) // positions in error messages count from the first character
	if len(body) == 0 {
		return nil, 0, nil
	}
	if t := h.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return nil, http.StatusUnsupportedMediaType, errMediaType
		}
	}
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, http.StatusUnsupportedMediaType, errMediaType
	}
	var raw json.RawMessage
	err := json.Unmarshal(body, &raw)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		line, column := lineColumn(body, int(syntax.Offset)-1)
		return nil, 0, errs.New(errs.Invalid, "MALFORMED_JSON", "the body is not valid JSON at line %d, column %d: %s", line, column, syntax.Error())
	case err != nil:
		return nil, 0, errs.New(errs.Invalid, "MALFORMED_JSON", "the body is not valid JSON")
	case body[0] != '{':
		return nil, 0, errs.New(errs.Invalid, "MALFORMED_JSON", "the body must be a JSON object, beginning with {")
	}
	return body, 0, nil
}

// lineColumn counts from 1, columns in characters.
func lineColumn(body []byte, offset int) (line, column int) {
	b := body[:min(max(offset, 0), len(body))]
	line = bytes.Count(b, []byte("\n")) + 1
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return line, utf8.RuneCount(b) + 1
}

// offsetOf is the way back from lineColumn.
func offsetOf(body []byte, line, column int) int {
	offset := 0
	for ; line > 1; line-- {
		i := bytes.IndexByte(body[offset:], '\n')
		if i < 0 {
			return len(body)
		}
		offset += i + 1
	}
	for ; column > 1 && offset < len(body); column-- {
		_, size := utf8.DecodeRune(body[offset:])
		offset += size
	}
	return offset
}

// protojson's messages; their first blank may be a no-break space, on purpose of their authors.
var (
	decodeMessage = regexp.MustCompile(`^proto:[\s\x{a0}]+(?:syntax error[\s\x{a0}]+)?\(line (\d+):(\d+)\):[\s\x{a0}]*(.*)$`)
	unknownField  = regexp.MustCompile(`^unknown field "`)
)

// explain turns what protojson says about a body into an error that names the field. msg that is not of protojson stays as it is.
func explain(msg string, body []byte, m protoreflect.MessageDescriptor) *errs.Error {
	parts := decodeMessage.FindStringSubmatch(msg)
	if parts == nil {
		return errs.New(errs.Invalid, "INVALID_ARGUMENT", "%s", strings.ReplaceAll(msg, "\u00a0", " "))
	}
	line, _ := strconv.Atoi(parts[1])
	column, _ := strconv.Atoi(parts[2])
	path := pathAt(body, offsetOf(body, line, column))
	if unknownField.MatchString(parts[3]) {
		return errs.New(errs.Invalid, "UNKNOWN_FIELD", "the body has a field that does not exist: %s (line %d, column %d)", path, line, column).
			WithField(path, "no such field; known here: %s", listed(fieldsBeside(path, m)))
	}
	return errs.New(errs.Invalid, "INVALID_ARGUMENT", "the body cannot be read at line %d, column %d", line, column).WithField(path, "%s", parts[3])
}

// fieldsBeside lists the JSON names of the message that the last part of path would be a field of.
func fieldsBeside(path string, m protoreflect.MessageDescriptor) []string {
	parts := strings.Split(path, ".")
	for _, p := range parts[:len(parts)-1] {
		name, _, _ := strings.Cut(p, "[")
		f := fieldOf(m, name)
		if f == nil || f.Message() == nil || f.IsMap() {
			return nil
		}
		m = f.Message()
	}
	return fieldNames(m, func(protoreflect.FieldDescriptor) bool { return true })
}

// place is one level of nesting on the way to a JSON token.
type place struct {
	array   bool
	index   int
	key     string
	wantKey bool
}

// pathAt names the member of body, which is valid JSON, at the offset: "spec.names[3]".
func pathAt(body []byte, offset int) string {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var stack []place
	done := func() bool { return d.InputOffset() > int64(offset) }
	next := func() { // a value has ended
		if n := len(stack); n > 0 {
			stack[n-1].index++
			stack[n-1].wantKey = !stack[n-1].array
		}
	}
	for {
		tok, err := d.Token()
		if err != nil {
			return pathOf(stack)
		}
		delim, _ := tok.(json.Delim)
		switch n := len(stack); {
		case delim == '}' || delim == ']':
			stack = stack[:n-1]
			if done() {
				return pathOf(stack)
			}
			next()
		case n > 0 && stack[n-1].wantKey:
			stack[n-1].key, _ = tok.(string)
			stack[n-1].wantKey = false
			if done() {
				return pathOf(stack)
			}
		case done():
			return pathOf(stack)
		case delim == '{':
			stack = append(stack, place{wantKey: true})
		case delim == '[':
			stack = append(stack, place{array: true})
		default:
			next()
		}
	}
}

func pathOf(stack []place) string {
	var b strings.Builder
	for _, p := range stack {
		switch {
		case p.array:
			b.WriteString("[" + strconv.Itoa(p.index) + "]")
		case p.key != "":
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p.key)
		}
	}
	return b.String()
}
