#!/usr/bin/env node
// A SIP phone that only registers: REGISTER, answer the digest challenge, print how it went. Real packets, no dependencies.
//
//   sip-register.mjs --target 203.0.113.1 --user 1007 --password pw1007-Secret
//   sip-register.mjs --target 203.0.113.1 --user 1007 --wrong --count 1000 --source 203.0.113.10 --transport tcp
//
//   --target HOST[:PORT]   port 5060 if none is given; an IPv6 address with a port goes in brackets
//   --source ADDRESS       send from this address (it must be one of this machine)
//   --transport udp|tcp    default udp
//   --user N --password P  or --wrong: another wrong password each time
//   --count N              attempts, default 1
//   --interval MS          pause between attempts, default 0
//   --timeout MS           how long to wait for each answer, default 500
//   --stop-after N         end early after N attempts in a row without an answer (that is what a ban looks like)
//   --decoy                a made-up Authorization header in front of the real one, as Asterisk takes it
//   --json                 one JSON object per attempt and one for the sum, instead of text
//
// Ends with status 0 when every attempt was accepted, 1 otherwise.

import { createHash, randomBytes } from "node:crypto";
import dgram from "node:dgram";
import net from "node:net";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    target: { type: "string" },
    source: { type: "string" },
    transport: { type: "string", default: "udp" },
    user: { type: "string" },
    password: { type: "string" },
    wrong: { type: "boolean", default: false },
    count: { type: "string", default: "1" },
    interval: { type: "string", default: "0" },
    timeout: { type: "string", default: "500" },
    "stop-after": { type: "string", default: "0" },
    decoy: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
if (!options.target || !options.user || (!options.password && !options.wrong)) {
  console.error("usage: sip-register.mjs --target HOST[:PORT] --user N (--password P | --wrong) [--source A] [--transport udp|tcp] [--count N] [--decoy]");
  process.exit(2);
}

const [host, port] = splitTarget(options.target);
const timeoutMs = Number(options.timeout);
const bracketed = host.includes(":") ? `[${host}]` : host;

/** One transport that outlives attempts, as a real client keeps its port: send a request, get the final answer or null. */
class Line {
  #waiting = null;
  #buffer = "";
  #send = null;
  local = null;

  async open() {
    if (options.transport === "tcp") await this.#openTcp();
    else await this.#openUdp();
  }

  async #openUdp() {
    const socket = dgram.createSocket(host.includes(":") ? "udp6" : "udp4");
    socket.on("message", (message) => this.#receive(message.toString()));
    // A closed port answers by ICMP; for this program that is "no answer".
    socket.on("error", () => {});
    await new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.bind(0, options.source, () => socket.connect(port, host, resolve));
    });
    this.local = socket.address();
    this.#send = (text) => socket.send(text);
    this.close = () => socket.close();
  }

  async #openTcp() {
    const socket = net.connect({ host, port, localAddress: options.source });
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        socket.destroy();
        reject(new Error("no connection"));
      }, timeoutMs);
      socket.once("error", (error) => {
        clearTimeout(timer);
        reject(error);
      });
      socket.once("connect", () => {
        clearTimeout(timer);
        resolve();
      });
    });
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      this.#buffer += bytes.toString();
      // None of the answers to a REGISTER carries a body, so the empty line ends each.
      for (let end; (end = this.#buffer.indexOf("\r\n\r\n")) >= 0; this.#buffer = this.#buffer.slice(end + 4)) {
        this.#receive(this.#buffer.slice(0, end + 4));
      }
    });
    this.local = { address: socket.localAddress, port: socket.localPort };
    this.#send = (text) => socket.write(text);
    this.close = () => socket.destroy();
  }

  #receive(text) {
    const status = Number(/^SIP\/2\.0 (\d{3})/.exec(text)?.[1]);
    const branch = /branch=([^;\s]+)/.exec(text)?.[1];
    if (!status || status < 200 || branch !== this.#waiting?.branch) return;
    const { resolve, timer } = this.#waiting;
    this.#waiting = null;
    clearTimeout(timer);
    resolve({ status, text });
  }

  request(branch, text) {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting = null;
        resolve(null);
      }, timeoutMs);
      this.#waiting = { branch, resolve, timer };
      this.#send(text);
    });
  }

  close = () => {};
}

/** One attempt: REGISTER, and once more with the digest when challenged. */
async function register(line, password, callId) {
  const fromTag = token();
  let authorization = "";
  for (let sequence = 1; sequence <= 2; sequence++) {
    const branch = `z9hG4bK${token()}`;
    const answer = await line.request(branch, message(line, { branch, fromTag, callId, sequence, authorization }));
    if (!answer) return "timeout";
    const challenge = /^WWW-Authenticate:\s*Digest\s+(.*)$/im.exec(answer.text)?.[1];
    if (answer.status !== 401 || !challenge || sequence === 2) return answer.status;
    const decoy = options.decoy ? 'Authorization: Digest username="x",realm="x",nonce="x",uri="sip:x",response="x"\r\n' : "";
    authorization = `${decoy}Authorization: ${digest(challenge, password)}\r\n`;
  }
}

function message(line, { branch, fromTag, callId, sequence, authorization }) {
  const transport = options.transport.toUpperCase();
  const address = line.local.address.includes(":") ? `[${line.local.address}]` : line.local.address;
  const here = `${address}:${line.local.port}`;
  return (
    `REGISTER sip:${bracketed} SIP/2.0\r\n` +
    `Via: SIP/2.0/${transport} ${here};rport;branch=${branch}\r\n` +
    `Max-Forwards: 70\r\n` +
    `From: <sip:${options.user}@${bracketed}>;tag=${fromTag}\r\n` +
    `To: <sip:${options.user}@${bracketed}>\r\n` +
    `Call-ID: ${callId}\r\n` +
    `CSeq: ${sequence} REGISTER\r\n` +
    `Contact: <sip:${options.user}@${here};transport=${options.transport}>\r\n` +
    `Expires: 120\r\n` +
    `User-Agent: sip-register\r\n` +
    authorization +
    `Content-Length: 0\r\n\r\n`
  );
}

/** RFC 8760 and RFC 2617 digest, with or without qop. */
function digest(challenge, password) {
  const field = (name) => new RegExp(`${name}="?([^",]+)"?`, "i").exec(challenge)?.[1];
  const [realm, nonce, opaque, algorithm] = [field("realm"), field("nonce"), field("opaque"), field("algorithm") ?? "MD5"];
  const hash = (text) => createHash(algorithm.toUpperCase() === "SHA-256" ? "sha256" : "md5").update(text).digest("hex");
  const uri = `sip:${bracketed}`;
  const secret = hash(`${options.user}:${realm}:${password}`);
  const request = hash(`REGISTER:${uri}`);
  const qop = /qop=/i.test(challenge);
  const clientNonce = token();
  const response = hash(qop ? `${secret}:${nonce}:00000001:${clientNonce}:auth:${request}` : `${secret}:${nonce}:${request}`);
  return (
    `Digest username="${options.user}", realm="${realm}", nonce="${nonce}", uri="${uri}", response="${response}", algorithm=${algorithm}` +
    (opaque ? `, opaque="${opaque}"` : "") +
    (qop ? `, qop=auth, nc=00000001, cnonce="${clientNonce}"` : "")
  );
}

function splitTarget(target) {
  const match = /^\[(.+)\](?::(\d+))?$/.exec(target) ?? /^([^:]+)(?::(\d+))?$/.exec(target);
  return match ? [match[1], Number(match[2] ?? 5060)] : [target, 5060];
}

function token() {
  return randomBytes(8).toString("hex");
}

const sum = { accepted: 0, rejected: 0, timeout: 0 };
const started = performance.now();
let line = null;
let silent = 0;
for (let attempt = 1; attempt <= Number(options.count); attempt++) {
  const begun = performance.now();
  let result;
  try {
    if (!line) {
      line = new Line();
      await line.open();
    }
    const password = options.wrong ? `wrong-${token()}` : options.password;
    result = await register(line, password, `${token()}@sip-register`);
  } catch (error) {
    if (error.code === "EADDRNOTAVAIL" || error.code === "EINVAL") throw error;
    result = "timeout";
  }
  const outcome = result === 200 ? "accepted" : result === "timeout" ? "timeout" : "rejected";
  sum[outcome]++;
  if (result === "timeout" && options.transport === "tcp") {
    line?.close();
    line = null;
  }
  const took = Math.round((performance.now() - begun) * 10) / 10;
  if (options.json) console.log(JSON.stringify({ attempt, outcome, status: result === "timeout" ? null : result, ms: took }));
  else console.log(`${attempt} ${outcome}${result === "timeout" ? "" : ` ${result}`} ${took} ms`);
  silent = outcome === "timeout" ? silent + 1 : 0;
  if (silent > 0 && silent === Number(options["stop-after"])) break;
  if (Number(options.interval) > 0 && attempt < Number(options.count)) {
    await new Promise((resolve) => setTimeout(resolve, Number(options.interval)));
  }
}
line?.close();
const seconds = Math.round(performance.now() - started) / 1000;
if (options.json) console.log(JSON.stringify({ ...sum, seconds }));
else console.log(`accepted ${sum.accepted}, rejected ${sum.rejected}, no answer ${sum.timeout}, ${seconds} s`);
process.exitCode = sum.accepted > 0 && sum.rejected + sum.timeout === 0 ? 0 : 1;
