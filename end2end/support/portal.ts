// The release build of the portal, on free ports and its own private PostgreSQL in a temporary folder.
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { eventually, freePort, isRoot, portalBinary, repository, site } from "./places.ts";

/** The host's address as every lab sees it; see `testbed/lab`. */
export const hostSeenFromLab = "10.99.255.1";

export interface PortalPlace {
  url: string;
  agentsPort: number;
  folder: string;
  mailFolder: string;
}

export class Portal {
  #child: ChildProcess | null = null;
  readonly place: PortalPlace;
  readonly #smtpPort: number;

  private constructor(place: PortalPlace, smtpPort: number) {
    this.place = place;
    this.#smtpPort = smtpPort;
  }

  static async start(smtpPort: number, mailFolder: string): Promise<Portal> {
    const folder = await mkdtemp(path.join(tmpdir(), "ringfence-e2e-"));
    // The private PostgreSQL runs as an unprivileged user and must be able to pass through.
    await chmod(folder, 0o755);
    const place = { url: `http://localhost:${await freePort()}`, agentsPort: await freePort(), folder, mailFolder };
    const portal = new Portal(place, smtpPort);
    await portal.run();
    return portal;
  }

  /** Starts the process; again after `kill`, on the same data and ports. */
  async run(): Promise<void> {
    const log = createWriteStream(path.join(this.place.folder, "portal.log"), { flags: "a" });
    const child = spawn(portalBinary, ["serve"], {
      cwd: repository,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        PATH: process.env["PATH"],
        HOME: this.place.folder,
        RUST_LOG: process.env["RUST_LOG"] ?? "info",
        LEPTOS_SITE_ROOT: site,
        RINGFENCE__HTTP__LISTEN: `127.0.0.1:${new URL(this.place.url).port}`,
        RINGFENCE__HTTP__PUBLIC_URL: this.place.url,
        RINGFENCE__DATABASE__DATA_DIR: path.join(this.place.folder, "data"),
        RINGFENCE__AGENTS__LISTEN: `0.0.0.0:${this.place.agentsPort}`,
        RINGFENCE__AGENTS__PUBLIC_HOST: isRoot ? hostSeenFromLab : "localhost",
        RINGFENCE__AGENTS__PUBLIC_PORT: String(this.place.agentsPort),
        RINGFENCE__MAIL__SMTP_URL: `smtp://127.0.0.1:${this.#smtpPort}`,
        RINGFENCE__MAIL__FROM: "Ringfence <portal@ringfence.test>",
      },
    });
    child.stdout.pipe(log);
    child.stderr.pipe(log);
    this.#child = child;
    await mkdir(this.place.folder, { recursive: true });
    try {
      await eventually("the portal answers", 60, async () => {
        if (child.exitCode !== null) return "ended";
        return (await fetch(this.place.url, { redirect: "manual" })).status < 500;
      });
      if (child.exitCode !== null) throw new Error(`the portal ended with status ${child.exitCode}`);
    } catch (error) {
      throw new Error(`${String(error)}\n${await this.log()}`, { cause: error });
    }
  }

  /** What a power cut does to the process. Its database goes on alone, as it does when the process crashes. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
    // A database whose portal was killed runs on; SIGINT is its fast shutdown.
    const pid = await readFile(path.join(this.place.folder, "data/postgres/data/postmaster.pid"), "utf8").catch(() => "");
    if (Number.parseInt(pid) > 0) process.kill(Number.parseInt(pid), "SIGINT");
    if (!process.env["RINGFENCE_KEEP"]) await rm(this.place.folder, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await ended;
    clearTimeout(timer);
  }

  async log(): Promise<string> {
    const text = await readFile(path.join(this.place.folder, "portal.log"), "utf8").catch(() => "");
    return text.split("\n").slice(-60).join("\n");
  }
}
