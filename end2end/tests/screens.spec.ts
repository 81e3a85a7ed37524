// Every page at both widths, light and dark: nothing that axe can find, a quiet console, and a picture to look at.
import { mkdirSync } from "node:fs";
import path from "node:path";
import type { Page } from "@playwright/test";
import { expect, test } from "../support/fixtures.ts";
import { expectAccessible, open } from "../support/pages.ts";
import { addPbx, allowAddress, blockAddress, logIn, signUp } from "../support/people.ts";
import { fill } from "../support/fill.ts";
import { screens } from "../support/places.ts";

const widths = [1440, 390];
const schemes = ["light", "dark"] as const;

test("pages before login", async ({ page }) => {
  for (const [name, where] of Object.entries({ "sign-up": "/sign-up", login: "/login", forgot: "/forgot", verify: "/verify?token=x", reset: "/reset?token=x", "not-found": "/no-such-page" })) {
    await pictures(page, name, where);
  }
});

test("steps of a sign-up and of a login", async ({ page, portal }) => {
  test.setTimeout(240_000);
  const tenant = await signUp(page, portal, (step) => pictures(page, step));
  await page.context().clearCookies();
  await logIn(page, tenant, "", (step) => pictures(page, step));
});

test("pages without data", async ({ page, tenant }) => {
  void tenant;
  for (const [name, where] of Object.entries(pages)) await pictures(page, `${name}-empty`, where);
});

test("pages with data", async ({ page, tenant }) => {
  void tenant;
  test.setTimeout(240_000);
  await addPbx(page, "hq");
  await addPbx(page, "branch-berlin");
  await allowAddress(page, "198.51.100.0/24", "Office in Berlin");
  await allowAddress(page, "2001:db8:1::/48", "VPN");
  for (let last = 1; last <= 8; last++) await blockAddress(page, `203.0.113.${last}`, `Scanner ${last}`);
  await blockAddress(page, "2001:db8:bad::/48", "Hosting company with nothing but scanners in it");
  for (const [name, where] of Object.entries(pages)) await pictures(page, name, where);
});

test("pages with 10,000 rows", async ({ page, portal, tenant }) => {
  test.setTimeout(240_000);
  await addPbx(page, "hq");
  await fill(portal, tenant, 10_000);
  for (const name of ["overview", "allowed-ips", "blocked-ips", "audit"] as const) await pictures(page, `${name}-many`, pages[name]);
  await open(page, "/blocked-ips?search=10.0.39.16");
  await expect(page.getByRole("table", { name: "Blocked addresses" }).getByText("10.0.39.16", { exact: true })).toBeVisible();
});

const pages = { overview: "/", pbxes: "/pbxes", "allowed-ips": "/allowed-ips", "blocked-ips": "/blocked-ips", audit: "/audit" };

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
      await page.screenshot({ path: path.join(screens, `${name}-${width}-${colorScheme}.png`), fullPage: true });
      await expectAccessible(page);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(overflow, `${name} at ${width} px scrolls sideways`).toBeLessThanOrEqual(0);
    }
  }
}
