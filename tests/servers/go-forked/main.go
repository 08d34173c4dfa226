// SPDX-License-Identifier: MIT

// An HTTP server in the style of fork-and-signal restart code: server ADDRESS
//
// Alone it binds ADDRESS. With FORKED_SERVER set it was started by the one that it replaces: the listener is
// descriptor 3, and its parent is sent TERM as soon as it serves. It drains on INT.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "gen=%s pid=%d\n", os.Getenv("HANDOFF_GENERATION"), os.Getpid())
}

func listen(address string, forked bool) (net.Listener, error) {
	if forked {
		return net.FileListener(os.NewFile(3, ""))
	}
	return net.Listen("tcp", address)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: server ADDRESS")
	}
	forked := os.Getenv("FORKED_SERVER") != ""
	listener, err := listen(os.Args[1], forked)
	if err != nil {
		log.Fatal(err)
	}
	drain := make(chan os.Signal, 1)
	signal.Notify(drain, syscall.SIGINT)
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if forked {
		syscall.Kill(syscall.Getppid(), syscall.SIGTERM)
	}
	select {
	case err := <-served:
		log.Fatal(err)
	case <-drain:
	}
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
