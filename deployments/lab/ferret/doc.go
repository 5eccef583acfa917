// Package ferret issues a certificate on the whole product over MongoDB's wire, against an embedded FerretDB, where no MongoDB can be had. It is a module
// of its own because FerretDB is large and the product must not depend on it. It proves dialect and wire, never concurrency, the use of indexes or durability.
package ferret
