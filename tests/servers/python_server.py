#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An HTTP server of Python's standard library that drains on SIGINT: python_server.py [PORT]

It takes descriptor 3, or with a PORT binds for itself. GET /?ms=N answers after N milliseconds. It says on
HANDOFF_READY_FD when it is ready.
"""
import http.server
import os
import signal
import socket
import socketserver
import sys
import threading
import time
import urllib.parse

LISTEN_FD = 3
IDLE_SECONDS = 10


class Server(socketserver.ThreadingTCPServer):
    # Threads that server_close() waits for: the requests in flight.
    daemon_threads = False
    block_on_close = True

    def __init__(self):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        if len(sys.argv) > 1:
            self.socket = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
        else:
            self.socket = socket.socket(fileno=LISTEN_FD)
        # Another generation may take the connection between select and accept.
        self.socket.setblocking(False)
        self.draining = False
        self.lock = threading.Lock()
        self.idle = set()

    def drain(self, *_):
        # In a thread of its own, because shutdown() waits for serve_forever(), which this handler interrupts.
        threading.Thread(target=self.stop).start()

    def stop(self):
        self.shutdown()
        with self.lock:
            self.draining = True
            for connection in self.idle:
                connection.shutdown(socket.SHUT_RD)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    answered = False

    def handle_one_request(self):
        with self.server.lock:
            if self.answered and self.server.draining:
                self.close_connection = True
                return
            # A connection that has not brought its first request is owed an answer.
            if self.answered:
                self.server.idle.add(self.connection)
        try:
            super().handle_one_request()
        finally:
            with self.server.lock:
                self.server.idle.discard(self.connection)

    def parse_request(self):
        with self.server.lock:
            self.server.idle.discard(self.connection)
        return super().parse_request()

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
        body = "gen=%s pid=%d\n" % (os.environ.get("HANDOFF_GENERATION", ""), os.getpid())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if self.server.draining:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body.encode())
        self.answered = True

    def log_message(self, format, *args):
        pass


def main():
    server = Server()
    signal.signal(signal.SIGINT, server.drain)
    if "HANDOFF_READY_FD" in os.environ:
        with open(int(os.environ["HANDOFF_READY_FD"]), "w") as ready:
            ready.write("\n")
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()
