// A real Asterisk and a real attacker in network namespaces (`testbed/lab`), and the agent beside that Asterisk.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { agentBinary, repository } from "./places.ts";

const run = promisify(execFile);
const labScript = path.join(repository, "testbed/lab");
const phoneScript = path.join(repository, "testbed/sip-register.mjs");

export interface Registering {
  user?: string;
  /** Left out: a wrong one, another each time. */
  password?: string;
  source?: string;
  transport?: "udp" | "tcp";
  count?: number;
  intervalMs?: number;
  /** A made-up Authorization header in front of the real one. */
  decoy?: boolean;
  stopAfter?: number;
  target?: string;
}

export interface Registered {
  accepted: number;
  rejected: number;
  timeout: number;
  seconds: number;
}

let labs = 0;

export class Lab {
  readonly name: string;
  readonly pbxAddress = "203.0.113.1";
  readonly #stateFolder: string;
  #agent: ChildProcess | null = null;

  private constructor(name: string, stateFolder: string) {
    this.name = name;
    this.#stateFolder = stateFolder;
  }

  static async up(): Promise<Lab> {
    const name = `e${process.pid % 100_000}${String.fromCharCode(97 + (labs++ % 26))}`;
    const stateFolder = await mkdtemp(path.join(tmpdir(), "ringfence-agent-"));
    await chmod(stateFolder, 0o700);
    // The first lab of a machine makes the Asterisk root file system.
    await run(labScript, ["up", name], { timeout: 600_000 });
    return new Lab(name, stateFolder);
  }

  async down(): Promise<void> {
    await this.stopAgent();
    await run(labScript, ["down", this.name], { timeout: 60_000 });
    await rm(this.#stateFolder, { recursive: true, force: true });
  }

  /** Runs a command in the PBX's namespace and gives its output. */
  async onPbx(command: string, ...args: string[]): Promise<string> {
    return (await run(labScript, ["exec", this.name, "pbx", command, ...args], { timeout: 60_000, env: this.#agentEnvironment() })).stdout;
  }

  /** The command as the page shows it, only that this agent is not installed and keeps its state apart. */
  async enrol(command: string): Promise<void> {
    const [program, ...args] = command.trim().split(/\s+/);
    if (program !== "ringfence-agent") throw new Error(`not a command of the agent: ${command}`);
    await this.onPbx(agentBinary, ...args, "--state-dir", this.#stateFolder);
  }

  startAgent(): void {
    const log = createWriteStream(path.join(this.#stateFolder, "agent.log"), { flags: "a" });
    const agent = spawn(
      labScript,
      ["exec", this.name, "pbx", agentBinary, "run", "--state-dir", this.#stateFolder, "--pbx", "asterisk", "--firewall", "nftables"],
      { stdio: ["ignore", "pipe", "pipe"], env: this.#agentEnvironment() },
    );
    agent.stdout.pipe(log);
    agent.stderr.pipe(log);
    this.#agent = agent;
  }

  async stopAgent(): Promise<void> {
    const agent = this.#agent;
    this.#agent = null;
    if (!agent || agent.exitCode !== null || agent.signalCode !== null) return;
    const ended = new Promise((resolve) => agent.once("exit", resolve));
    agent.kill("SIGTERM");
    const timer = setTimeout(() => agent.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(timer);
  }

  async agentLog(): Promise<string> {
    const text = await readFile(path.join(this.#stateFolder, "agent.log"), "utf8").catch(() => "");
    return text.split("\n").slice(-40).join("\n");
  }

  #agentEnvironment(): NodeJS.ProcessEnv {
    return {
      PATH: process.env["PATH"],
      HOME: this.#stateFolder,
      RUST_LOG: process.env["RUST_LOG"] ?? "info",
      RINGFENCE_AGENT_AMI_USER: "agent",
      RINGFENCE_AGENT_AMI_SECRET: "amisecret",
    };
  }

  /** A real SIP client in the attacker's namespace. */
  async register(how: Registering): Promise<Registered> {
    const args = ["exec", this.name, "attacker", process.execPath, phoneScript, "--json"];
    args.push("--target", how.target ?? this.pbxAddress, "--user", how.user ?? "1007");
    if (how.password === undefined) args.push("--wrong");
    else args.push("--password", how.password);
    args.push("--source", how.source ?? "203.0.113.10", "--transport", how.transport ?? "udp");
    args.push("--count", String(how.count ?? 1), "--interval", String(how.intervalMs ?? 0), "--stop-after", String(how.stopAfter ?? 0));
    if (how.decoy) args.push("--decoy");
    // Status 1 says that not every attempt was accepted, which is what an attacker gets.
    const { stdout } = await run(labScript, args, { timeout: 110_000, maxBuffer: 64 << 20 }).catch((error: { code?: number; stdout: string }) => {
      if (error.code !== 1) throw error;
      return error;
    });
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Registered;
  }

  /** Whether a single packet and its answer get through from this source, asked by ICMP, which no detection counts. */
  async reachable(source: string): Promise<boolean> {
    const ping = run(labScript, ["exec", this.name, "attacker", "ping", "-c", "1", "-W", "1", "-I", source, this.pbxAddress], { timeout: 10_000 });
    return ping.then(() => true, () => false);
  }
}
