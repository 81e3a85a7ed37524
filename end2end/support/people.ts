// A person at the portal: signs up by mail, sets up the second factor, logs in and out.
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, type Locator, type Page } from "@playwright/test";
import { linkIn, mailTo } from "./mail.ts";
import { hydrated, open } from "./pages.ts";
import { repository, sleep } from "./places.ts";
import type { PortalPlace } from "./portal.ts";

const run = promisify(execFile);

/** An authenticator app: never gives the same code twice, because the portal takes each only once. */
export class Authenticator {
  readonly #secret: string;
  #lastStep = 0;

  constructor(secret: string) {
    this.#secret = secret;
  }

  async code(): Promise<string> {
    while (Math.floor(Date.now() / 30_000) <= this.#lastStep) await sleep(500);
    this.#lastStep = Math.floor(Date.now() / 30_000);
    return (await run(process.execPath, [path.join(repository, "scripts/one-time-code.mjs"), this.#secret])).stdout.trim();
  }
}

export interface Tenant {
  organisation: string;
  slug: string;
  email: string;
  password: string;
  authenticator: Authenticator;
  recoveryCodes: string[];
}

let tenants = 0;

/** Looks at the step that a person has come to. */
export type Look = (step: string) => Promise<void>;

/** The whole way from an empty form to the overview; the mail comes through a real SMTP server. */
export async function signUp(page: Page, portal: PortalPlace, look: Look = async () => {}): Promise<Tenant> {
  const unique = `${Date.now().toString(36)}${tenants++}`;
  const tenant = {
    organisation: `Acme ${unique}`,
    slug: `acme-${unique}`,
    email: `meier@${unique}.example`,
    password: `correct-horse-${unique}-staple`,
  };
  await open(page, `${portal.url}/sign-up`);
  await page.getByLabel("Organisation").fill(tenant.organisation);
  await page.getByLabel("Short name").fill(tenant.slug);
  await page.getByLabel("E-mail address").fill(tenant.email);
  await page.getByLabel("Password", { exact: true }).fill(tenant.password);
  await page.getByRole("button", { name: "Create organisation" }).click();
  await expect(page.getByRole("heading", { name: "Check your mail" })).toBeVisible();
  await look("mail-sent");

  await open(page, linkIn(await mailTo(portal.mailFolder, tenant.email, /./)));
  // Mail scanners follow links; only who knows the password of the sign-up confirms it.
  await page.getByLabel("The password that you chose", { exact: true }).fill(tenant.password);
  await page.getByRole("button", { name: "Confirm e-mail address" }).click();
  return { ...tenant, ...(await setUpSecondFactor(page, look)) };
}

/** From the step of the second factor, which is forced, to the overview. */
export async function setUpSecondFactor(page: Page, look: Look = async () => {}): Promise<Pick<Tenant, "authenticator" | "recoveryCodes">> {
  await page.waitForURL("**/setup");
  await hydrated(page);
  await page.getByText("Type the key instead").click();
  await look("authenticator");
  const authenticator = new Authenticator((await page.locator("details.key code").innerText()).replaceAll(/\s/g, ""));
  await page.getByLabel("Code that the app shows").fill(await authenticator.code());
  await page.getByRole("button", { name: "Go on" }).click();

  const codes = page.getByRole("list", { name: "Recovery codes" }).getByRole("listitem");
  await expect(codes).toHaveCount(10);
  const recoveryCodes = await codes.allInnerTexts();
  await look("recovery-codes");
  await page.getByLabel("I have kept them").check();
  await page.getByRole("button", { name: "Open Ringfence" }).click();
  await onOverview(page);
  return { authenticator, recoveryCodes };
}

/** `url`: of a portal other than the common one. */
export async function logIn(page: Page, tenant: Tenant, url = "", look: Look = async () => {}): Promise<void> {
  await open(page, `${url}/login`);
  await page.getByLabel("E-mail address").fill(tenant.email);
  await page.getByLabel("Password", { exact: true }).fill(tenant.password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL("**/login/code**");
  await hydrated(page);
  await look("code");
  await page.getByLabel("Code", { exact: true }).fill(await tenant.authenticator.code());
  await page.getByRole("button", { name: "Go on" }).click();
  await onOverview(page);
}

async function onOverview(page: Page): Promise<void> {
  await expect(page.getByRole("heading", { level: 1, name: "Overview" })).toBeAttached();
  await hydrated(page);
}

/** Adds a PBX in the page; gives the command that the page shows once. Its dialog stays open. */
export async function addPbx(page: Page, name: string, url = ""): Promise<string> {
  await open(page, `${url}/pbxes`);
  await page.getByRole("button", { name: "Add a PBX" }).click();
  const dialog = page.getByRole("dialog", { name: "Add a PBX" });
  await dialog.getByLabel("Name").fill(name);
  await dialog.getByRole("button", { name: "Add", exact: true }).click();
  return page.getByRole("dialog", { name: `Connect ${name}` }).locator(".copy-text code").innerText();
}

export async function allowAddress(page: Page, target: string, note: string): Promise<void> {
  await open(page, "/allowed-ips");
  await page.getByRole("button", { name: "Allow an address" }).first().click();
  const dialog = page.getByRole("dialog", { name: "Allow an address" });
  await dialog.getByLabel("Address, network or domain name").fill(target);
  await dialog.getByLabel("Note").fill(note);
  await dialog.getByRole("button", { name: "Allow", exact: true }).click();
  await expect(rowOf(page, "Allowed addresses", target)).toBeVisible();
}

export async function blockAddress(page: Page, target: string, reason: string): Promise<void> {
  await open(page, "/blocked-ips");
  await page.getByRole("button", { name: "Block an address" }).first().click();
  const dialog = page.getByRole("dialog", { name: "Block an address" });
  await dialog.getByLabel("Address or network").fill(target);
  await dialog.getByLabel("Reason").fill(reason);
  await dialog.getByRole("button", { name: "Block", exact: true }).click();
  await expect(rowOf(page, "Blocked addresses", target)).toBeVisible();
}

/** The row of a table in which something is exactly this text. */
export function rowOf(page: Page, table: string, text: string | RegExp): Locator {
  return page.getByRole("table", { name: table }).getByRole("row").filter({ has: page.getByText(text, { exact: true }) });
}
