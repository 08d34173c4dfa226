// SPDX-License-Identifier: MIT

// An HTTP server that drains on SIGINT: server [PORT]
//
// It takes descriptor 3, or with a PORT binds for itself. GET /?ms=N answers after N milliseconds. It says READY=1 on
// NOTIFY_SOCKET. Built with CGO_ENABLED=0 it is a static program, which no preloaded library reaches.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func answer(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	time.Sleep(time.Duration(ms) * time.Millisecond)
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "gen=%s pid=%d\n", os.Getenv("HANDOFF_GENERATION"), os.Getpid())
}

func sayReady() {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.Dial("unixgram", name)
	if err != nil {
		log.Print(err)
		return
	}
	defer conn.Close()
	conn.Write([]byte("READY=1"))
}

func listen() (net.Listener, error) {
	if len(os.Args) > 1 {
		return net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	}
	return net.FileListener(os.NewFile(3, "listener"))
}

func main() {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	drain := make(chan os.Signal, 1)
	signal.Notify(drain, syscall.SIGINT, syscall.SIGTERM)
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	sayReady()
	select {
	case err := <-served:
		log.Fatal(err)
	case <-drain:
	}
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
