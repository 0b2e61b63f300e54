// Package dep is a dependency.
package dep
