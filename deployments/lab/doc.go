// Package lab is the test bench: real peers of the platform that tests and the demo start on free loopback
// ports, each in a folder of its own. It holds no peer itself.
//
// Nothing in this module may be linked into the product's binaries, and nothing in it reaches beyond loopback.
package lab
