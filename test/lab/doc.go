// Package lab is what the tests of the whole have in common: a world of their own, the programs under test in it, and root
// file systems to run. It is for tests only.
package lab
