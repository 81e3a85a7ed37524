// The PBX keeps its defence while the portal is gone, and nothing is lost or doubled afterwards.
import { expect, test } from "../support/fixtures.ts";
import { open } from "../support/pages.ts";
import { addPbx, rowOf, signUp } from "../support/people.ts";
import { sleep } from "../support/places.ts";
import { Portal } from "../support/portal.ts";

const attackers = ["203.0.113.21", "203.0.113.22", "203.0.113.23", "203.0.113.24"];

test("the server is killed for 60 s during an attack: the agent bans alone, afterwards each ban is there once", async ({ page, lab, portal, expectedOnConsole }) => {
  test.setTimeout(300_000);
  // The browser's own words: the page's live connection breaks with the server, and what it fetches ahead while it is idle.
  expectedOnConsole.push(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|Failed to load resource/);
  const own = await Portal.start(Number(process.env["E2E_SMTP_PORT"]), portal.mailFolder);
  try {
    const at = (path: string) => `${own.place.url}${path}`;
    await signUp(page, own.place);
    const command = await addPbx(page, "hq", own.place.url);
    await lab.enrol(command);
    lab.startAgent();
    await expect(page.getByText("Online. The agent is connected and enforcing.")).toBeVisible({ timeout: 30_000 });

    // One attacker while the server lives and is killed in the middle of it, three while it is away.
    const first = lab.register({ source: attackers[0]!, count: 200, intervalMs: 50, stopAfter: 3 });
    await sleep(150);
    await own.kill();
    const killed = Date.now();
    expect((await first).timeout).toBe(3);
    for (const source of attackers.slice(1)) {
      expect(await lab.register({ source, count: 200, intervalMs: 20, stopAfter: 3 })).toMatchObject({ timeout: 3 });
      expect(await lab.reachable(source)).toBe(false);
    }
    await sleep(Math.max(0, 60_000 - (Date.now() - killed)));
    for (const source of attackers) expect(await lab.reachable(source)).toBe(false);

    await own.run();
    // The session outlives the server's process.
    await open(page, at("/blocked-ips"));
    for (const source of attackers) await expect(rowOf(page, "Blocked addresses", source)).toHaveCount(1, { timeout: 60_000 });
    for (const source of attackers) expect(await lab.reachable(source)).toBe(false);
  } finally {
    await own.stop();
  }
});
