// A TLS client in node: asks for the policy, then sends 1 MB to an echo application and compares what returns.
// node tls_client.mjs PORT CA.pem HOST VERSION
import crypto from "node:crypto";
import fs from "node:fs";
import tls from "node:tls";

const [port, ca, host, version] = process.argv.slice(2);
const options = {
  host: "127.0.0.1", port, ca: fs.readFileSync(ca), servername: host, minVersion: version, maxVersion: version,
  ALPNProtocols: ["h2", "http/1.1"], allowHalfOpen: true,
};

// Send data and FIN, and read to the end.
function exchange(data, finish) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    const socket = tls.connect(options, () => (finish ? socket.end(data) : socket.write(data)));
    const about = () => ({ protocol: socket.getProtocol(), authorized: socket.authorized, alpn: socket.alpnProtocol });
    let seen;
    socket.on("secureConnect", () => (seen = about()));
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("end", () => {
      if (!finish) socket.end();
      resolve({ ...seen, data: Buffer.concat(chunks) });
    });
    socket.on("error", reject);
  });
}

const policy = await exchange("<policy-file-request/>\0", false);
const sent = crypto.randomBytes(1 << 20);
const echoed = await exchange(sent, true);
console.log(JSON.stringify({
  ...policy,
  data: policy.data.toString(),
  echo: echoed.data.subarray(0, -3).equals(sent),
  after: echoed.data.subarray(-3).toString(),
}));
