#!/usr/bin/env node
// Records what an agent of an earlier version and the portal say to each other, for server/tests/it/first_version.rs:
//   record.mjs PORTAL AGENT FOLDER
// PORTAL is a built `ringfence`. AGENT is a `ringfence-agent` of the earlier version, built after `git apply record.patch`, by which it
// writes down what is said. FOLDER gets conversation.txt; copy that version's agent.proto there, too. Needs root, for a host name.
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";

const [portal, agent, folder] = process.argv.slice(2);
const scripts = path.join(import.meta.dirname, "../../../scripts");
const place = mkdtempSync("/tmp/ringfence-record.");
chmodSync(place, 0o755);
const said = path.join(place, "said");
writeFileSync(said, "");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
const [port, agentsPort] = [await freePort(), await freePort()];
const url = `http://localhost:${port}`;
const env = {
  ...process.env,
  RUST_LOG: "warn",
  RINGFENCE__HTTP__LISTEN: `127.0.0.1:${port}`,
  RINGFENCE__HTTP__PUBLIC_URL: url,
  RINGFENCE__DATABASE__DATA_DIR: path.join(place, "portal"),
  RINGFENCE__AGENTS__LISTEN: `127.0.0.1:${agentsPort}`,
  RINGFENCE__AGENTS__PUBLIC_HOST: "localhost",
  RINGFENCE__AGENTS__PUBLIC_PORT: String(agentsPort),
  RINGFENCE__DEVELOPMENT__MAILBOX: "true",
};

let cookie = "";
async function call(operation, body) {
  const headers = { "content-type": "application/json", "sec-fetch-site": "same-origin", cookie };
  const answer = await fetch(`${url}/api/${operation}`, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${operation}: ${answer.status} ${text}`);
  cookie = answer.headers.getSetCookie()[0]?.split(";")[0] ?? cookie;
  return JSON.parse(text);
}

async function until(what, holds) {
  for (let turn = 0; turn < 2400; turn += 1) {
    const found = await Promise.resolve(holds()).catch(() => undefined);
    if (found) return;
    await pause(50);
  }
  throw new Error(`${what}: waited in vain`);
}

// The agent writes, too: what is done is noted before it is done.
const note = (line) => writeFileSync(said, `${line}\n`, { flag: "a" });
const acts = {
  allow: (target) => call("allowed_ips/add", { form: { target, note: "", expires_at: "" }, insist: false }),
  block: (net) => call("blocked_ips/block", { form: { net, duration: "permanent", reason: "scanner" }, insist: false }),
  unblock: (search) => call("blocked_ips/unblock_matching", { filter: { search, source: null, pbx_id: null } }),
};
async function does(what, whom) {
  note(`! ${what} ${whom}`);
  await acts[what](whom);
}
const current = () =>
  until("the agent is current", async () => {
    const found = await call("pbxes/list", {});
    const pbx = (found.rows ?? found)[0];
    return pbx.state === "online" && pbx.wanted_revision === pbx.applied_revision && pbx.wanted_ban_seq === pbx.applied_ban_seq;
  });
const reported = async () => {
  const { rows } = await call("blocked_ips/list", { filter: {}, after: null });
  return rows.filter((ban) => ban.pbx_name === "hq").length;
};

const inNamespace = (...words) => ["--uts", "sh", "-c", 'hostname pbx.example; exec "$@"', "sh", agent, "--state-dir", path.join(place, "agent"), ...words];
const agentEnv = { ...process.env, RECORD: said, RUST_LOG: "info" };
const run = () =>
  spawn("unshare", inNamespace("run", "--pbx", "simulated", "--firewall", "memory"), { env: agentEnv, stdio: ["ignore", "ignore", "inherit"] });
const stop = (child) =>
  new Promise((resolve) => {
    child.once("exit", resolve);
    child.kill("SIGTERM");
  });

const children = [];
try {
  const seed = JSON.parse(execFileSync(portal, ["demo-seed", "--json"], { env, encoding: "utf8" }));
  const server = spawn(portal, ["serve"], { env, stdio: ["ignore", "inherit", "inherit"] });
  children.push(server);
  await until("the portal answers", async () => (await fetch(`${url}/login`)).ok);
  await call("account/log_in", { email: seed.email, password: seed.password });
  // The code of this moment was used by the seed.
  const code = execFileSync("node", [path.join(scripts, "one-time-code.mjs"), seed.totp_secret, "1"], { encoding: "utf8" }).trim();
  await call("account/log_in_code", { code });
  // The seed has.
  note("! allow 192.0.2.0/24");

  execFileSync("unshare", inNamespace("enrol", "--token", seed.enrolment_token, "--server", `localhost:${agentsPort}`), { env: agentEnv });
  let pbx = run();
  children.push(pbx);
  await until("the agent has connected", () => readFileSync(said, "utf8").includes("\n< 1a"));
  await current();
  await does("allow", "10.20.0.0/16");
  await current();
  await does("block", "100.64.0.9");
  await current();
  await does("unblock", "100.64.0.9");
  await current();
  await until("the agent reports bans", async () => (await reported()) >= 2);
  await current();
  await stop(pbx);
  await does("block", "100.64.0.10");
  await does("allow", "2001:db8:64::/64");
  pbx = run();
  children.push(pbx);
  await pause(1_000);
  await current();
  await does("unblock", "100.64.0.10");
  await current();
  // Heartbeats of both sides.
  await pause(7_000);
  await stop(pbx);
  await stop(server);
} finally {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
}

const varint = (bytes, at) => {
  let value = 0n;
  for (let shift = 0n; ; shift += 7n, at += 1) {
    value |= BigInt(bytes[at] & 127) << shift;
    if (bytes[at] < 128) return [value, at + 1];
  }
};
/** The server's clock as a welcome tells it (field 1, and in it field 2), in milliseconds since 1970. */
function clock(welcome) {
  const bytes = Buffer.from(welcome, "hex");
  for (let at = 2; at < bytes.length; ) {
    const [tag, next] = varint(bytes, at);
    const [value, after] = varint(bytes, next);
    if (tag === 16n) return value;
    at = tag % 8n === 2n ? after + Number(value) : after;
  }
  throw new Error(`no clock in ${welcome}`);
}
const kinds = {
  ">": ["hello", "heartbeat", "policy applied", "policy refused", "bans applied", "report"],
  "<": ["welcome", "heartbeat", "policy", "set of bans", "changes of bans", "report stored"],
};
const lines = readFileSync(said, "utf8").trim().split("\n");
const text = lines.flatMap((line, at) => {
  const [direction, message] = line.split(" ");
  if (direction === "!") return [line];
  const kind = kinds[direction][(Number.parseInt(message.slice(0, 2), 16) >> 3) - 1];
  const remark = `# ${direction === ">" ? "agent" : "server"}: ${kind}`;
  if (kind !== "hello") return [remark, line];
  const welcome = lines.slice(at).find((later) => later.startsWith("< 0a"));
  return ["", `! clock ${clock(welcome.slice(2))}`, remark, line];
});
mkdirSync(folder, { recursive: true });
writeFileSync(path.join(folder, "conversation.txt"), `${text.join("\n")}\n`);
rmSync(place, { recursive: true, force: true });
