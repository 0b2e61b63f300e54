// Server uses of the Go runtime what most programs do: the poller, timers, threads, signals.
package main

import (
	"io"
	"net"
	"os"
	"os/signal"
	"time"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	go func() {
		select {
		case <-stop:
		case <-time.After(time.Minute):
		}
		l.Close()
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go io.Copy(c, c)
	}
}
