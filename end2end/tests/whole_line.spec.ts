// From an empty sign-up form to a packet that the kernel drops, and back.
import { expect, test } from "../support/fixtures.ts";
import { open } from "../support/pages.ts";
import { addPbx, blockAddress, rowOf } from "../support/people.ts";
import { eventually } from "../support/places.ts";

const attacker = "203.0.113.10";
const bystander = "203.0.113.11";
const trickster = "203.0.113.12";

test("an attacker is blocked by the kernel and seen live, and unblocked from the page", async ({ page, tenant, lab }) => {
  test.setTimeout(240_000);
  expect(tenant.recoveryCodes).toHaveLength(10);

  const command = await addPbx(page, "hq");
  await lab.enrol(command);
  lab.startAgent();
  // The dialog with the command waits for the agent, and sees it arrive.
  await expect(page.getByText("Online. The agent is connected and enforcing.")).toBeVisible({ timeout: 15_000 });
  await page.getByRole("button", { name: "Done" }).click();
  await expect(rowOf(page, "PBXes", /^hq/)).toContainText("Online");
  // A token works once.
  await expect(lab.enrol(command)).rejects.toThrow();

  await open(page, "/blocked-ips");
  await expect(rowOf(page, "Blocked addresses", attacker)).toHaveCount(0);
  expect(await lab.reachable(attacker)).toBe(true);

  const attack = await lab.register({ source: attacker, user: "1007", count: 200, stopAfter: 3 });
  // The fifth wrong password bans; a few more may be answered before the event has gone round.
  expect(attack.rejected).toBeGreaterThanOrEqual(5);
  expect(attack.rejected).toBeLessThan(50);
  expect(attack.timeout).toBe(3);
  expect(await lab.reachable(attacker)).toBe(false);
  expect(await lab.reachable(bystander)).toBe(true);
  expect(await lab.register({ source: bystander, user: "1008", password: "pw1008-Secret" })).toMatchObject({ accepted: 1 });

  // Asterisk reports the challenge of a made-up header and checks the one behind it: that hides nobody.
  const tricky = await lab.register({ source: trickster, user: "1007", count: 200, stopAfter: 3, decoy: true });
  expect(tricky.rejected).toBeLessThan(50);
  expect(await lab.reachable(trickster)).toBe(false);

  // The page was open all the while: the ban arrives by itself, with its evidence.
  const row = rowOf(page, "Blocked addresses", attacker);
  await expect(row).toBeVisible();
  await expect(row).toContainText("1007");
  await row.getByRole("link", { name: attacker }).click();
  const panel = page.getByRole("complementary", { name: attacker });
  await expect(panel.getByRole("listitem").filter({ hasText: "Wrong password for 1007" }).first()).toBeVisible();
  await expect(panel).toContainText("hq");

  await panel.getByRole("button", { name: "Unblock", exact: true }).click();
  await eventually("packets flow again", 10, () => lab.reachable(attacker));
  expect(await lab.register({ source: attacker, user: "1007", password: "pw1007-Secret" })).toMatchObject({ accepted: 1 });
  await expect(rowOf(page, "Blocked addresses", attacker)).toHaveCount(0);

  // By hand: a network, from the page to the kernel.
  await blockAddress(page, "203.0.113.32/28", "scanner");
  await eventually("the network is blocked", 10, async () => !(await lab.reachable("203.0.113.40")));
  expect(await lab.reachable("203.0.113.50")).toBe(true);

  // Stopping the agent does not open the firewall.
  await lab.stopAgent();
  expect(await lab.reachable("203.0.113.40")).toBe(false);
});
