// nri-plugin is the NRI plugin of seccompgen: containerd starts it, from its directory of plugins, or it is run by hand
// with --socket.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/seccompgen/seccompgen/internal/nri"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "seccompgen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	socket := flag.String("socket", "", "containerd's NRI `socket`; without it, the connection that containerd made")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	self, err := os.Executable() // behind the link in the directory of plugins
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	hook := filepath.Join(filepath.Dir(self), "oci-hook")
	if _, err := os.Stat(hook); err != nil {
		return fmt.Errorf("the hook is not beside this program: %w", err)
	}
	var options []stub.Option
	switch {
	case *socket != "":
		options = []stub.Option{stub.WithPluginName("seccompgen"), stub.WithPluginIdx("10"), stub.WithSocketPath(*socket)}
	case os.Getenv(api.PluginSocketEnvVar) == "": // containerd sets it, and the name and the index
		return errors.New("containerd starts this program; by hand give --socket, as /var/run/nri/nri.sock")
	}
	s, err := stub.New(&nri.Plugin{Hook: hook}, options...)
	if err != nil {
		return fmt.Errorf("make the NRI plugin: %w", err)
	}
	if err := s.Run(ctx); err != nil {
		return fmt.Errorf("serve containerd: %w", err)
	}
	return nil
}
