// server is a small Go server that keeps every part of the Go runtime busy: it listens, serves, sets timers, collects
// garbage and starts threads.
//
//	server [-load] SECONDS
//
// Without -load it only starts, as a program does that is recorded for a moment.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	load := flag.Bool("load", false, "keep all of it busy")
	flag.Parse()
	seconds, err := strconv.ParseFloat(flag.Arg(0), 64)
	if err == nil {
		err = run(*load, time.Duration(seconds*float64(time.Second)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// hearInit has an init pass a signal on. runc passes on to it what it gets itself, now and then a signal of its own Go runtime:
// a call of the init's that a recording may lack by chance.
func hearInit() error {
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil || string(comm) != "tini\n" {
		return nil // no init that passes on anything
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR1)
	if err := syscall.Kill(1, syscall.SIGUSR1); err != nil {
		return err
	}
	<-heard
	return nil
}

func run(load bool, d time.Duration) error {
	if err := hearInit(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, time.Now()) })}
	go server.Serve(l)
	end := time.Now().Add(d)
	if err := get("http://" + l.Addr().String()); err != nil {
		return err
	}
	var group sync.WaitGroup
	errs := make(chan error, 100)
	if load {
		debug.SetGCPercent(5)
		for range 4 {
			group.Go(func() { // an endless loop, for asynchronous preemption
				for n := 0; time.Now().Before(end); {
					for range 1 << 22 {
						n++
					}
				}
			})
			group.Go(func() { // requests and timers
				for time.Now().Before(end) {
					if err := get("http://" + l.Addr().String()); err != nil {
						errs <- err
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
			group.Go(func() { // garbage, and memory that is given back
				for time.Now().Before(end) {
					kept := make([][]byte, 64)
					for i := range kept {
						kept[i] = make([]byte, 1<<16)
					}
					runtime.KeepAlive(kept)
					debug.FreeOSMemory()
				}
			})
			group.Go(func() { // threads that end
				for time.Now().Before(end) {
					done := make(chan bool)
					go func() {
						runtime.LockOSThread()
						close(done)
					}()
					<-done
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	group.Wait()
	time.Sleep(time.Until(end))
	select {
	case err := <-errs:
		return err
	default:
		return server.Close()
	}
}

func get(url string) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return err
}
