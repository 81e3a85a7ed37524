// Where the parts under test are, and small things that more than one of them needs.
import { createServer } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const build = process.env["RINGFENCE_BUILD"] ?? path.join(repository, "target/release");
export const portalBinary = path.join(build, "ringfence");
export const agentBinary = path.join(build, "ringfence-agent");
export const site = process.env["LEPTOS_SITE_ROOT"] ?? path.join(repository, "target/site");
export const screens = path.join(repository, "end2end/test-results/screens");

/** Network namespaces, and with them everything about real packets, need root. */
export const isRoot = process.getuid?.() === 0;

/** A TCP port that is free at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "0.0.0.0", () => {
      const address = server.address();
      server.close(() => (address && typeof address === "object" ? resolve(address.port) : reject(new Error("no port"))));
    });
  });
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Tries until `attempt` gives something, at most `seconds` long. */
export async function eventually<T>(what: string, seconds: number, attempt: () => Promise<T | null | undefined | false>): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  let last: unknown;
  do {
    try {
      const value = await attempt();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    await sleep(100);
  } while (Date.now() < deadline);
  throw new Error(`${what}: not within ${seconds} s`, { cause: last });
}
