// One mail server and one portal for all journeys; each journey signs up a tenant of its own.
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { receiveMail } from "./mail.ts";
import { agentBinary, freePort, portalBinary } from "./places.ts";
import { Portal } from "./portal.ts";

export default async function globalSetup(): Promise<() => Promise<void>> {
  for (const binary of [portalBinary, agentBinary]) {
    if (!existsSync(binary)) throw new Error(`${binary} is missing: journeys run against the release build, see "make build"`);
  }
  const mailFolder = await mkdtemp(path.join(tmpdir(), "ringfence-mail-"));
  const smtpPort = await freePort();
  const stopMail = await receiveMail(mailFolder, smtpPort);
  const portal = await Portal.start(smtpPort, mailFolder);
  process.env["E2E_PORTAL"] = JSON.stringify(portal.place);
  process.env["E2E_SMTP_PORT"] = String(smtpPort);
  return async () => {
    await portal.stop();
    await stopMail();
    await rm(mailFolder, { recursive: true, force: true });
  };
}
