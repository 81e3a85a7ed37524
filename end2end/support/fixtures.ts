// What every journey starts from: a page that fails on any console error, a tenant of its own, a lab.
import { test as base, expect } from "@playwright/test";
import { Lab } from "./lab.ts";
import { watchConsole } from "./pages.ts";
import { isRoot } from "./places.ts";
import { signUp, type Tenant } from "./people.ts";
import type { PortalPlace } from "./portal.ts";

interface Fixtures {
  portal: PortalPlace;
  /** Messages that this journey causes on purpose; everything else on the console fails it. */
  expectedOnConsole: RegExp[];
  /** The page is signed in as the first person of this tenant. */
  tenant: Tenant;
  /** A real Asterisk and an attacker; the journey is left out without root. */
  lab: Lab;
}

export const test = base.extend<Fixtures>({
  portal: async ({}, use) => {
    await use(JSON.parse(process.env["E2E_PORTAL"] ?? "") as PortalPlace);
  },
  baseURL: async ({ portal }, use) => {
    await use(portal.url);
  },
  expectedOnConsole: async ({}, use) => {
    await use([]);
  },
  page: async ({ page, expectedOnConsole }, use) => {
    const problems = watchConsole(page);
    await use(page);
    expect(problems.filter((problem) => !expectedOnConsole.some((expected) => expected.test(problem)))).toEqual([]);
  },
  tenant: async ({ page, portal }, use) => {
    await use(await signUp(page, portal));
  },
  lab: async ({}, use, testInfo) => {
    testInfo.skip(!isRoot, "network namespaces need root");
    const lab = await Lab.up();
    await use(lab);
    if (testInfo.status !== testInfo.expectedStatus) await testInfo.attach("agent.log", { body: await lab.agentLog(), contentType: "text/plain" });
    await lab.down();
  },
});

export { expect };
