# SPDX-License-Identifier: MIT
"""A WSGI application for gunicorn. GET /?ms=N answers after N milliseconds."""
import os
import time
import urllib.parse


def app(environ, start_response):
    query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
    time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    body = "gen=%s pid=%d\n" % (os.environ.get("HANDOFF_GENERATION", ""), os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
