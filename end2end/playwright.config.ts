import { defineConfig } from "@playwright/test";

// Journeys against the release build. They share two cores with a database, a portal, an Asterisk and a browser, so they run one after another.
export default defineConfig({
  testDir: "tests",
  outputDir: "test-results/runs",
  globalSetup: "./support/global_setup.ts",
  workers: 1,
  fullyParallel: false,
  forbidOnly: Boolean(process.env["CI"]),
  // Once more on a machine whose other core may be busy; what passed at the second try is reported as flaky.
  retries: process.env["CI"] ? 1 : 0,
  timeout: 120_000,
  expect: { timeout: 10_000 },
  reporter: [["list"]],
  use: {
    browserName: "chromium",
    actionTimeout: 20_000,
    navigationTimeout: 20_000,
    viewport: { width: 1440, height: 900 },
    screenshot: "only-on-failure",
    trace: "retain-on-failure",
    launchOptions: {
      executablePath: process.env["RINGFENCE_CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
    },
  },
});
