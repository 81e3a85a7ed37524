// Allowed means never blocked.
import { expect, test } from "../support/fixtures.ts";
import { open } from "../support/pages.ts";
import { addPbx, allowAddress, rowOf } from "../support/people.ts";
import { eventually } from "../support/places.ts";

test("an allowed attacker stays unbanned during 1,000 bad attempts", async ({ page, tenant, lab }) => {
  test.setTimeout(240_000);
  void tenant;
  const command = await addPbx(page, "hq");
  await lab.enrol(command);
  lab.startAgent();
  await expect(page.getByText("Online. The agent is connected and enforcing.")).toBeVisible({ timeout: 15_000 });

  await allowAddress(page, "198.51.100.0/24", "office");
  await expect(page.getByText(/Enforced on 1 of 1/)).toBeVisible();
  const office = await lab.register({ source: "198.51.100.20", user: "1007", count: 1000 });
  expect(office).toMatchObject({ rejected: 1000, timeout: 0 });
  expect(await lab.reachable("198.51.100.20")).toBe(true);
  await open(page, "/blocked-ips");
  await expect(page.getByRole("row").filter({ hasText: "198.51.100." })).toHaveCount(0);

  // Allowing a banned address lifts its ban.
  await lab.register({ source: "203.0.113.12", user: "1003", count: 30, stopAfter: 2 });
  expect(await lab.reachable("203.0.113.12")).toBe(false);
  await expect(rowOf(page, "Blocked addresses", "203.0.113.12")).toBeVisible();
  await allowAddress(page, "203.0.113.12", "home office");
  await eventually("packets flow again", 10, () => lab.reachable("203.0.113.12"));
});
