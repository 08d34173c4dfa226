// SPDX-License-Identifier: MIT
// An HTTP server of Node.js that drains on SIGINT and SIGTERM: node server.js [PORT]
// It takes descriptor 3, or with a PORT binds for itself. GET /?ms=N answers after N milliseconds.
'use strict';
const http = require('http');

let draining = false;

const server = http.createServer((request, response) => {
	const ms = Number(new URL(request.url, 'http://localhost').searchParams.get('ms')) || 0;
	setTimeout(() => {
		// A client that keeps its connection would keep this process.
		if (draining)
			response.setHeader('Connection', 'close');
		response.setHeader('Content-Type', 'text/plain');
		response.end(`gen=${process.env.HANDOFF_GENERATION || ''} pid=${process.pid}\n`);
	}, ms);
});

function drain()
{
	if (draining)
		return;
	draining = true;
	server.close();
	server.closeIdleConnections();
}

process.on('SIGINT', drain);
process.on('SIGTERM', drain);
server.listen(process.argv[2] ? {host: '127.0.0.1', port: Number(process.argv[2])} : {fd: 3});
