// Package txt turns TXT values into the presentation form that APIs of providers take, and back (RFC 1035 section 5.1, with the octal escapes of Route 53).
package txt

import (
	"fmt"
	"slices"
	"strings"
)

// longest is how many bytes one character-string has (RFC 1035 section 3.3).
const longest = 255

// Split cuts a value into character-strings.
func Split(value string) []string {
	var parts []string
	for len(value) > longest {
		parts, value = append(parts, value[:longest]), value[longest:]
	}
	return append(parts, value)
}

// Quote is the value as quoted character-strings.
func Quote(value string) string {
	parts := Split(value)
	for i, part := range parts {
		var b strings.Builder
		b.WriteByte('"')
		for _, c := range []byte(part) {
			switch {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, `\%03o`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
		parts[i] = b.String()
	}
	return strings.Join(parts, " ")
}

// Unquote is the value of what Quote or a provider wrote. A text that does not begin with a quote is taken as it is.
func Unquote(text string) string {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, `"`) {
		return text
	}
	var b strings.Builder
	quoted := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			quoted = !quoted
		case !quoted:
		case c == '\\' && i+3 < len(text) && octal(text[i+1:i+4]):
			b.WriteByte((text[i+1]-'0')<<6 | (text[i+2]-'0')<<3 | (text[i+3] - '0'))
			i += 3
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func octal(s string) bool {
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' && s[2] <= '7'
}

// Union is what there should be at a name: what is there, without what is to go, and with what is wanted.
func Union(there, want, drop []string) []string {
	union := slices.DeleteFunc(slices.Clone(there), func(v string) bool { return slices.Contains(drop, v) })
	for _, v := range want {
		if !slices.Contains(union, v) {
			union = append(union, v)
		}
	}
	return union
}
