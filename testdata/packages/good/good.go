// Package good has no tests.
package good
