// Package domain holds the rules of the dns service: which account serves a name, and what a set of TXT values at one name should be.
//
// It must never call anything: it takes the time and what was found outside, and answers what changed and which facts that made true.
package domain
