// A real SMTP server that keeps what it is sent, one JSON file per message, so that every test process can read it.
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { simpleParser } from "mailparser";
import { SMTPServer } from "smtp-server";
import { eventually } from "./places.ts";

export interface Mail {
  to: string[];
  subject: string;
  text: string;
}

/** Starts the server; the result stops it. */
export async function receiveMail(folder: string, port: number): Promise<() => Promise<void>> {
  await mkdir(folder, { recursive: true });
  let number = 0;
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ["STARTTLS", "AUTH"],
    onData(stream, session, done) {
      simpleParser(stream)
        .then(async (parsed) => {
          const mail: Mail = {
            to: session.envelope.rcptTo.map((recipient) => recipient.address),
            subject: parsed.subject ?? "",
            text: parsed.text ?? "",
          };
          const file = path.join(folder, `${String(++number).padStart(6, "0")}.json`);
          // A reader must never see half a message.
          await writeFile(`${file}.part`, JSON.stringify(mail));
          await rename(`${file}.part`, file);
          done();
        })
        .catch(done);
    },
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve());
  });
  return () => new Promise((resolve) => server.close(() => resolve()));
}

/** The newest message to this address whose subject fits and that doesn't say what another one said; waits for it. */
export async function mailTo(folder: string, address: string, subject: RegExp, other = "\0"): Promise<Mail> {
  return eventually(`mail to ${address} about ${subject}`, 20, async () => {
    const files = (await readdir(folder)).filter((file) => file.endsWith(".json")).sort().reverse();
    for (const file of files) {
      const mail = JSON.parse(await readFile(path.join(folder, file), "utf8")) as Mail;
      if (mail.to.includes(address) && subject.test(mail.subject) && !mail.text.includes(other)) return mail;
    }
    return null;
  });
}

/** The one link in a mail. */
export function linkIn(mail: Mail): string {
  const link = /https?:\/\/\S+/.exec(mail.text)?.[0];
  if (!link) throw new Error(`no link in the mail "${mail.subject}":\n${mail.text}`);
  return link;
}
