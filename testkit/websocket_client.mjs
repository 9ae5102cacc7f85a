// A WebSocket client in node, by the package ws: an echo of random bytes, a ping, and the closing handshake.
// node websocket_client.mjs PACKAGE/wrapper.mjs JSON
import crypto from "node:crypto";
import fs from "node:fs";

const { default: WebSocket } = await import(process.argv[2]);
const asked = JSON.parse(process.argv[3]);
const sent = Buffer.concat([crypto.randomBytes(asked.size / 2), Buffer.alloc(asked.size / 2, "0123456789abcdef")]);
const client = new WebSocket(asked.url, asked.protocols, {
  origin: asked.origin,
  perMessageDeflate: asked.compression && { threshold: 0 },
  ...(asked.ca && { ca: fs.readFileSync(asked.ca) }),
});

const seen = { protocol: null, compressed: false, echoed: false, pong: false, code: null };
const chunks = [];
let received = 0;
client.on("open", () => {
  seen.protocol = client.protocol;
  seen.compressed = client.extensions.includes("permessage-deflate");
  client.send(sent);
});
client.on("message", (data) => {
  chunks.push(data);
  received += data.length;
  if (received === asked.size) {
    seen.echoed = Buffer.concat(chunks).equals(sent);
    client.ping(asked.ping);
  }
});
client.on("pong", (data) => {
  seen.pong = data.toString() === asked.ping;
  client.close(asked.code, asked.reason);
});
client.on("close", (code) => {
  seen.code = code;
  console.log(JSON.stringify(seen));
});
client.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});
