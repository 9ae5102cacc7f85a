// A simple policy server for node. Usage: node server.js BACKLOG POLICY_FILE. Prints "port N".
"use strict";
const fs = require("fs");
const net = require("net");

const REQUEST = Buffer.from("<policy-file-request/>\0");
const reply = Buffer.concat([fs.readFileSync(process.argv[3]), Buffer.from([0])]);

const server = net.createServer((socket) => {
    let seen = Buffer.alloc(0);
    socket.setTimeout(3000, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.on("data", (piece) => {
        seen = seen.length ? Buffer.concat([seen, piece]) : piece;
        if (seen.length < REQUEST.length) return;
        if (seen.equals(REQUEST)) socket.end(reply);
        else socket.destroy();
    });
});
server.listen({ host: "127.0.0.1", port: 0, backlog: Number(process.argv[2]) }, () =>
    console.log("port", server.address().port));
