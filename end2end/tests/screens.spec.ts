// Every page at both widths, light and dark: nothing that axe can find, a quiet console, and a picture to look at.
import { mkdirSync } from "node:fs";
import path from "node:path";
import type { Page } from "@playwright/test";
import { expect, test } from "../support/fixtures.ts";
import { expectAccessible, open } from "../support/pages.ts";
import { addPbx, allowAddress, blockAddress, logIn, signUp } from "../support/people.ts";
import { fill, people, trouble } from "../support/fill.ts";
import { linkIn, mailTo } from "../support/mail.ts";
import { screens } from "../support/places.ts";

const widths = [1440, 390];
const schemes = ["light", "dark"] as const;

test("pages before login", async ({ page }) => {
  for (const [name, where] of Object.entries({ "sign-up": "/sign-up", login: "/login", forgot: "/forgot", verify: "/verify?token=x", reset: "/reset?token=x", "invitation-spent": "/invitation?token=x" })) {
    await pictures(page, name, where);
  }
});

test("steps of a sign-up and of a login", async ({ page, portal }) => {
  test.setTimeout(240_000);
  const tenant = await signUp(page, portal, (step) => pictures(page, step));
  await page.context().clearCookies();
  await logIn(page, tenant, "", (step) => pictures(page, step));
});

test("pages without data", async ({ page, tenant, expectedOnConsole }) => {
  void tenant;
  expectedOnConsole.push(/404 \(Not Found\).*\/no-such-page/);
  for (const [name, where] of Object.entries(pages)) await pictures(page, `${name}-empty`, where);
  await pictures(page, "not-found", "/no-such-page");
});

test("pages with data", async ({ page, portal, tenant }) => {
  test.setTimeout(240_000);
  await addPbx(page, "hq");
  await addPbx(page, "branch-berlin");
  await allowAddress(page, "198.51.100.0/24", "Office in Berlin");
  await allowAddress(page, "2001:db8:1::/48", "VPN");
  for (let last = 1; last <= 8; last++) await blockAddress(page, `203.0.113.${last}`, `Scanner ${last}`);
  await blockAddress(page, "2001:db8:bad::/48", "Hosting company with nothing but scanners in it");
  for (const [name, where] of Object.entries(pages)) await pictures(page, name, where);
  await trouble(portal, tenant, "hq", "branch-berlin");
  for (const name of ["overview", "pbxes"] as const) await pictures(page, `${name}-trouble`, pages[name]);
});

test("pages with 10,000 rows", async ({ page, portal, tenant }) => {
  test.setTimeout(240_000);
  await addPbx(page, "hq");
  await fill(portal, tenant, 10_000);
  for (const name of ["overview", "allowed-ips", "blocked-ips", "people", "audit"] as const) await pictures(page, `${name}-many`, pages[name]);
  await open(page, "/blocked-ips?search=10.0.39.16");
  await expect(page.getByRole("table", { name: "Blocked addresses" }).getByText("10.0.39.16", { exact: true })).toBeVisible();
});

test("people and invitations", async ({ page, browser, portal, tenant }) => {
  test.setTimeout(240_000);
  await open(page, "/people");
  await page.getByRole("button", { name: "Invite" }).click();
  await pictures(page, "dialog-invite");
  const email = `new@${tenant.slug}.example`;
  await page.getByLabel("E-mail address").fill(email);
  await page.getByRole("dialog").getByRole("button", { name: "Invite" }).click();
  await expect(page.getByRole("table", { name: "Invitations" })).toBeVisible();
  const context = await browser.newContext({ baseURL: portal.url });
  const theirs = await context.newPage();
  await pictures(theirs, "invitation", linkIn(await mailTo(portal.mailFolder, email, /^Invitation to /)));
  await context.close();
  await people(portal, tenant);
  await pictures(page, "people", "/people");
  await page.getByRole("button", { name: "Change the role of" }).first().click();
  await pictures(page, "dialog-role");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: /^Suspend/ }).first().click();
  await pictures(page, "dialog-suspend");
});

test("dialogs, panels and menus", async ({ page, tenant }) => {
  void tenant;
  test.setTimeout(240_000);
  await open(page, "/allowed-ips");
  await page.getByRole("button", { name: "Allow an address" }).first().click();
  const allow = page.getByRole("dialog", { name: "Allow an address" });
  await allow.getByLabel("Address, network or domain name").fill("0.0.0.0/0");
  await allow.getByRole("button", { name: "Allow", exact: true }).click();
  await expect(allow.locator("[aria-invalid=true]")).toBeVisible();
  await pictures(page, "dialog-allow-refused");
  await page.keyboard.press("Escape");

  await page.getByRole("button", { name: "CSV" }).click();
  await page.getByRole("button", { name: /Import/ }).click();
  await pictures(page, "dialog-import");
  await page.keyboard.press("Escape");

  await open(page, "/blocked-ips");
  await page.getByRole("button", { name: "Block an address" }).first().click();
  await pictures(page, "dialog-block");
  await page.keyboard.press("Escape");
  await blockAddress(page, "203.0.113.9", "Guessed passwords of six extensions");
  await page.getByRole("table", { name: "Blocked addresses" }).getByText("203.0.113.9", { exact: true }).click();
  await pictures(page, "panel-blocked");

  await addPbx(page, "hq");
  await pictures(page, "dialog-connect");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Remove hq" }).click();
  await pictures(page, "dialog-remove");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Change the limit" }).click();
  const limit = page.getByRole("dialog", { name: "How many phones may a change cost?" });
  await limit.getByLabel("At most, in percent of the registered phones").fill("101");
  await limit.getByRole("button", { name: "Set the limit" }).click();
  await expect(limit.getByText("A whole number from 0 to 100.", { exact: true })).toBeVisible();
  await pictures(page, "dialog-phone-loss");
  await limit.getByLabel("At most, in percent of the registered phones").fill("35");
  await limit.getByRole("button", { name: "Set the limit" }).click();
  await expect(limit).toBeHidden();
  await expect(page.getByText("loses more than 35 % of its registered phones")).toBeVisible();

  await open(page, "/audit");
  await page.locator("[data-open]").first().click();
  await expect(page.getByRole("complementary")).toBeVisible();
  await pictures(page, "panel-audit");

  await open(page, "/");
  await page.getByRole("button", { name: /^Account/ }).click();
  await pictures(page, "menu-account");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("combobox", { name: "Search or jump" })).toBeFocused();
  await pictures(page, "palette");
});

const pages = { overview: "/", pbxes: "/pbxes", "allowed-ips": "/allowed-ips", "blocked-ips": "/blocked-ips", people: "/people", sessions: "/sessions", audit: "/audit" };

/** `where` left out: of the page as it stands. */
async function pictures(page: Page, name: string, where?: string): Promise<void> {
  mkdirSync(screens, { recursive: true });
  for (const colorScheme of schemes) {
    await page.emulateMedia({ colorScheme });
    for (const width of widths) {
      await page.setViewportSize({ width, height: width === 390 ? 844 : 900 });
      if (where) await open(page, where);
      await expect(page.getByRole("heading", { level: 1 }).first()).toBeAttached();
      // A page that stays while the colours change has them in between for a moment.
      await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished)));
      // What lies above the page covers what can be seen of it, not its whole length.
      const fullPage = (await page.locator("dialog[open]").count()) === 0;
      await page.screenshot({ path: path.join(screens, `${name}-${width}-${colorScheme}.png`), fullPage });
      await expectAccessible(page);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(overflow, `${name} at ${width} px scrolls sideways`).toBeLessThanOrEqual(0);
      const below = await page.evaluate(() => document.documentElement.scrollHeight - document.body.getBoundingClientRect().bottom - window.scrollY);
      expect(below, `${name} at ${width} px scrolls on after its end`).toBeLessThanOrEqual(1);
    }
  }
}
