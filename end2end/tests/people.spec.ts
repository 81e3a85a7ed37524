// People come by invitation, get the role that they were given, and are out at once when they are removed.
import { expect, test } from "../support/fixtures.ts";
import { linkIn, mailTo } from "../support/mail.ts";
import { expectAccessible, hydrated, open, watchConsole } from "../support/pages.ts";
import { logIn, rowOf, setUpSecondFactor } from "../support/people.ts";

test("somebody is invited, sets up a second factor, works with the role given, and is thrown out", async ({ page, browser, portal, tenant }) => {
  test.setTimeout(180_000);
  const email = `new@${tenant.slug}.example`;
  const password = `horse-battery-${tenant.slug}-staple`;

  await open(page, "/people");
  await expect(rowOf(page, "People", tenant.email)).toContainText("Super administrator");
  await expectAccessible(page);
  await page.getByRole("button", { name: "Invite" }).click();
  const dialog = page.getByRole("dialog", { name: "Invite somebody" });
  await dialog.getByLabel("E-mail address").fill("nobody");
  await dialog.getByRole("button", { name: "Invite" }).click();
  await expect(dialog.getByText("Enter an e-mail address such as name@example.com.")).toBeVisible();
  await dialog.getByLabel("E-mail address").fill(email);
  await dialog.getByLabel("Role").selectOption({ label: "Security operator: sees all, blocks and allows" });
  await expectAccessible(page);
  await dialog.getByRole("button", { name: "Invite" }).click();
  await expect(rowOf(page, "Invitations", email)).toContainText("Security operator");
  await expectAccessible(page);

  // In a browser of her own.
  const context = await browser.newContext({ baseURL: portal.url });
  const theirs = await context.newPage();
  const problems = watchConsole(theirs);
  const link = linkIn(await mailTo(portal.mailFolder, email, /^Invitation to /));
  await open(theirs, link);
  await expect(theirs.getByText(`${tenant.email} invites ${email} to ${tenant.organisation} as Security operator.`)).toBeVisible();
  await expectAccessible(theirs);
  await theirs.getByLabel("Password", { exact: true }).fill("short");
  await theirs.getByRole("button", { name: "Accept" }).click();
  await expect(theirs.getByText("At least 12 characters. A few unrelated words make a good password.")).toBeVisible();
  await theirs.getByLabel("Password", { exact: true }).fill(password);
  await theirs.getByRole("button", { name: "Accept" }).click();
  const factor = await setUpSecondFactor(theirs);
  const person = { ...tenant, ...factor, email, password };

  // The invitation has become a person, in the page that was open all the time.
  await expect(rowOf(page, "People", email)).toContainText("Security operator");
  await expect(page.getByRole("table", { name: "Invitations" })).toBeHidden();
  await open(theirs, "/people");
  await expect(theirs.getByRole("button", { name: "Invite" })).toHaveCount(0);
  await open(theirs, "/pbxes");
  await expect(theirs.getByRole("button", { name: "Add a PBX" })).toHaveCount(0);
  await open(theirs, link);
  await expect(theirs.getByText("This invitation has been used, was withdrawn, or has expired.")).toBeVisible();

  // Another role: out, and in again with it.
  await open(theirs, "/blocked-ips");
  await page.getByRole("button", { name: `Change the role of ${email}` }).click();
  const role = page.getByRole("dialog", { name: "Change the role" });
  await role.getByLabel("Role").selectOption({ label: "Administrator: everything but Super administrators" });
  await expectAccessible(page);
  await role.getByRole("button", { name: "Change the role" }).click();
  await theirs.waitForURL("**/login?next=%2Fblocked-ips");
  await expect(rowOf(page, "People", email)).toContainText("Administrator");
  await logIn(theirs, person);
  await open(theirs, "/people");
  await expect(theirs.getByRole("button", { name: "Invite" })).toBeVisible();
  await expect(theirs.getByRole("button", { name: `Remove ${tenant.email}` })).toHaveCount(0);

  // One session ended by somebody else.
  await open(theirs, "/sessions");
  await expect(theirs.getByRole("table", { name: "Your sessions" }).getByRole("row").filter({ hasText: "this one" })).toContainText("authenticator app");
  await expectAccessible(theirs);
  await open(page, "/sessions");
  await page.getByRole("table", { name: "Everybody's sessions" }).getByRole("row").filter({ hasText: email }).getByRole("button", { name: "End" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "End it" }).click();
  await theirs.waitForURL("**/login?next=%2Fsessions");
  await expect(page.getByRole("table", { name: "Everybody's sessions" }).getByRole("row").filter({ hasText: email })).toHaveCount(0);
  await logIn(theirs, person);
  await open(page, "/people");

  // Removed in one browser, gone from the other.
  await open(theirs, "/blocked-ips");
  await page.getByRole("button", { name: `Remove ${email}` }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Remove" }).click();
  const removed = Date.now();
  await theirs.waitForURL("**/login?next=%2Fblocked-ips");
  test.info().annotations.push({ type: "thrown out after", description: `${Date.now() - removed} ms` });
  await expect(rowOf(page, "People", email)).toHaveCount(0);
  await hydrated(theirs);
  await theirs.getByLabel("E-mail address").fill(email);
  await theirs.getByLabel("Password", { exact: true }).fill(password);
  await theirs.getByRole("button", { name: "Log in" }).click();
  await theirs.waitForURL("**/login/code**");
  await hydrated(theirs);
  await theirs.getByLabel("Code", { exact: true }).fill(await person.authenticator.code());
  await theirs.getByRole("button", { name: "Go on" }).click();
  await expect(theirs.getByText("You have no access to any organisation")).toBeVisible();

  // Invited again, she comes with the account that she has.
  await page.getByRole("button", { name: "Invite" }).click();
  await dialog.getByLabel("E-mail address").fill(email);
  await dialog.getByRole("button", { name: "Invite" }).click();
  await expect(rowOf(page, "Invitations", email)).toContainText("Security operator");
  const again = linkIn(await mailTo(portal.mailFolder, email, /^Invitation to /, link));
  await open(theirs, again);
  await theirs.getByRole("link", { name: "Log in" }).click();
  await theirs.waitForURL("**/login?next=**");
  await hydrated(theirs);
  await theirs.getByLabel("E-mail address").fill(email);
  await theirs.getByLabel("Password", { exact: true }).fill(password);
  await theirs.getByRole("button", { name: "Log in" }).click();
  await theirs.waitForURL("**/login/code**");
  await hydrated(theirs);
  await theirs.getByLabel("Code", { exact: true }).fill(await person.authenticator.code());
  await theirs.getByRole("button", { name: "Go on" }).click();
  await theirs.waitForURL("**/invitation?token=**");
  await hydrated(theirs);
  await theirs.getByRole("button", { name: "Accept" }).click();
  await expect(theirs.getByRole("heading", { level: 1, name: "Overview" })).toBeAttached();
  await expect(rowOf(page, "People", email)).toContainText("Security operator");
  // The browser's own words about answers that aren't 2xx.
  expect(problems.filter((problem) => !/Failed to load resource/.test(problem))).toEqual([]);
  await context.close();
});
