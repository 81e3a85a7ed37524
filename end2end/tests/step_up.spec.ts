// What changes who has access asks for a fresh second factor, and what was typed stays.
import { anHourLater } from "../support/fill.ts";
import { expect, test } from "../support/fixtures.ts";
import { expectAccessible, open } from "../support/pages.ts";
import { rowOf } from "../support/people.ts";

test("an invitation asks for the second factor again, and goes out after it", async ({ page, portal, tenant, expectedOnConsole }) => {
  // The refusals that the page asks because of, and the wrong code.
  expectedOnConsole.push(/403 \(Forbidden\).*\/api\/people\//, /422 .*\/api\/account\/step_up/);
  const [first, second] = [`first@${tenant.slug}.example`, `second@${tenant.slug}.example`];
  await open(page, "/people");
  const invite = page.getByRole("dialog", { name: "Invite somebody" });
  const stepUp = page.getByRole("dialog", { name: "Confirm that it's you" });
  const type = async (email: string) => {
    await page.getByRole("button", { name: "Invite" }).focus();
    await page.keyboard.press("Enter");
    await invite.getByLabel("E-mail address").fill(email);
    await page.keyboard.press("Enter");
  };

  // The login was a moment ago.
  await type(first);
  await expect(rowOf(page, "Invitations", first)).toBeVisible();

  await anHourLater(portal, tenant);
  await type(second);
  await expect(stepUp.getByLabel("Code")).toBeFocused();
  await expectAccessible(page);
  await page.keyboard.type("000000");
  await page.keyboard.press("Enter");
  await expect(stepUp.getByText("This code is wrong or was used before.")).toBeVisible();
  // Given up, nothing has happened, and nothing is lost.
  await page.keyboard.press("Escape");
  await expect(stepUp).toBeHidden();
  await expect(invite.getByLabel("E-mail address")).toHaveValue(second);
  await expect(rowOf(page, "Invitations", second)).toHaveCount(0);

  await invite.getByRole("button", { name: "Invite" }).focus();
  await page.keyboard.press("Enter");
  await page.evaluate(() => document.documentElement.setAttribute("data-same-page", ""));
  const again = page.waitForRequest(/\/live$/, { timeout: 30_000 });
  await stepUp.getByLabel("Code").fill(await tenant.authenticator.code());
  await page.keyboard.press("Enter");
  await expect(rowOf(page, "Invitations", second)).toBeVisible();
  await expect(stepUp).toBeHidden();
  await expect(invite).toBeHidden();

  // The page stays where it is, and goes on being live under the new id of its session.
  await again;
  await expect(page.locator(".live-dot")).toHaveAttribute("data-state", "live");
  await expect(page.locator("html[data-same-page]")).toHaveCount(1);

  // An hour later a recovery code does, too.
  await anHourLater(portal, tenant);
  await page.getByRole("button", { name: `Withdraw the invitation of ${first}` }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Withdraw" }).click();
  await expect(rowOf(page, "Invitations", first), "taking back asks for nothing").toHaveCount(0);
  await type(first);
  await stepUp.getByLabel("Code").fill(tenant.recoveryCodes[0]!);
  await page.keyboard.press("Enter");
  await expect(rowOf(page, "Invitations", first)).toBeVisible();
  await open(page, "/audit");
  await expect(page.getByText("Confirmed who they are").first()).toBeVisible();
});
