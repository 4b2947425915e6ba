// Node's own HTTP server: node node_http.js PORT [CERTIFICATE KEY]. Paths and bodies are those of
// answers.py, which has made the two files.
"use strict";

const fs = require("fs");

const [port, certificate, key] = process.argv.slice(2);
const folder = process.env.NETPOLL_BENCH_FOLDER;
const download = fs.readFileSync(`${folder}/download`);

function send(response, body, type) {
  response.writeHead(200, { "Content-Type": type, "Content-Length": body.length });
  response.end(body);
}

function answer(request, response) {
  switch (request.url) {
    case "/hello":
      return send(response, "Hello, world!", "text/plain");
    case "/again":
      return send(response, "Hello, again!", "text/plain");
    case "/json":
      return send(response, JSON.stringify({ message: "Hello, world!" }), "application/json");
    case "/download":
      return send(response, download, "application/octet-stream");
    case "/file":
      return fs.readFile(`${folder}/file`, (error, data) => {
        if (error) throw error;
        send(response, data, "application/octet-stream");
      });
    case "/upload": {
      let length = 0;
      request.on("data", (part) => { length += part.length; });
      request.on("end", () => send(response, String(length), "text/plain"));
      return;
    }
  }
  response.writeHead(404, { "Content-Length": 0 });
  response.end();
}

const options = { keepAliveTimeout: 75000 };
if (certificate) {
  options.cert = fs.readFileSync(certificate);
  options.key = fs.readFileSync(key);
}
const server = require(certificate ? "https" : "http").createServer(options, answer);
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
