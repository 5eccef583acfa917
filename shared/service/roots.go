package service

// Where a machine has no roots of its own, as in an image made from scratch, the public CAs are trusted by this copy of Mozilla's list.
import _ "golang.org/x/crypto/x509roots/fallback"
