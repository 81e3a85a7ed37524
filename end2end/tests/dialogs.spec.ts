// Dialogs and the palette by keyboard: the page goes on living whatever they are closed with, and they open after moving within the portal.
import { expect, test } from "../support/fixtures.ts";
import { expectAccessible, open } from "../support/pages.ts";
import { allowAddress, rowOf } from "../support/people.ts";

test("closing a dialog while its field has the focus leaves the page alive", async ({ page, tenant }) => {
  void tenant;
  for (const [where, button, field] of [
    ["/allowed-ips", "Allow an address", "Address, network or domain name"],
    ["/blocked-ips", "Block an address", "Address or network"],
    ["/pbxes", "Add a PBX", "Name"],
  ] as const) {
    await open(page, where);
    await page.getByRole("button", { name: button }).first().click();
    const dialog = page.getByRole("dialog", { name: button });
    await dialog.getByLabel(field).fill("203.0.113.77");
    await expectAccessible(page);
    await page.keyboard.press("Escape");
    await expect(dialog).toBeHidden();
    await expect(page.locator("html[data-crashed]")).toHaveCount(0);
    // Alive: it opens again.
    await page.getByRole("button", { name: button }).first().click();
    await expect(dialog).toBeVisible();
    await page.keyboard.press("Escape");
  }
  await allowAddress(page, "198.51.100.7", "By Enter");
  await expect(rowOf(page, "Allowed addresses", "198.51.100.7")).toBeVisible();
});

test("the palette opens over the page and gives the focus back; a slash at the end of an address leaves the page alive", async ({ page, tenant, expectedOnConsole }) => {
  void tenant;
  expectedOnConsole.push(/404 \(Not Found\).*\/blocked-ips\//);
  await open(page, "/blocked-ips/");
  const jump = page.getByRole("button", { name: "Search or jump" });
  await page.evaluate(() => {
    const watched = document.querySelector(".frame")!;
    new MutationObserver((changes) => {
      if (changes.some((change) => [...change.removedNodes].some((node) => node instanceof HTMLElement && node.matches("nav, header")))) watched.setAttribute("data-taken-out", "");
    }).observe(watched, { childList: true });
  });
  await jump.click();
  await expect(page.getByRole("combobox", { name: "Search or jump" })).toBeFocused();
  await expect(page.locator("[data-taken-out]"), "bar and navigation stay").toHaveCount(0);
  await page.keyboard.press("Escape");
  await expect(jump).toBeFocused();
});

test("dialogs open after moving within the portal", async ({ page, tenant }) => {
  void tenant;
  await open(page, "/");
  const main = page.getByRole("navigation", { name: "Main" });
  await main.getByRole("link", { name: "Blocked IPs" }).click();
  await page.getByRole("button", { name: "Block an address" }).first().click();
  await expect(page.getByRole("dialog", { name: "Block an address" })).toBeVisible();
  await page.keyboard.press("Escape");

  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Search or jump" }).fill("203.0.113.78");
  await page.getByRole("option", { name: /^Block / }).click();
  await expect(page.getByRole("dialog", { name: "Block an address" }).getByLabel("Address or network")).toHaveValue("203.0.113.78");
  await page.keyboard.press("Escape");

  await main.getByRole("link", { name: "Overview" }).click();
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Search or jump" }).fill("203.0.113.79");
  await page.getByRole("option", { name: /^Allow / }).click();
  await expect(page.getByRole("dialog", { name: "Allow an address" }).getByLabel("Address, network or domain name")).toHaveValue("203.0.113.79");
});

test("a list whose code can't be fetched says so, and comes at the second try", async ({ page, tenant, expectedOnConsole }) => {
  void tenant;
  expectedOnConsole.push(/split_blocked_ips|ERR_FAILED|Failed to load/);
  const code = /\/split_blocked_ips[^/]*\.wasm$/;
  await page.route(code, (route) => route.abort());
  await open(page, "/");
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Blocked IPs" }).click();
  await expect(page.getByRole("alert").filter({ hasText: "The page could not be loaded" })).toBeVisible();
  await expect(page.locator("html[data-crashed]")).toHaveCount(0);
  await page.unroute(code);
  await page.getByRole("button", { name: "Retry" }).click();
  await page.getByRole("button", { name: "Block an address" }).first().click();
  await expect(page.getByRole("dialog", { name: "Block an address" })).toBeVisible();
});
