// Rows for a tenant whose lists are long, written into the portal's own database: by hand they would take an hour.
// They are for looking at: neither the set of bans nor the chain of the log knows of them.
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import type { Tenant } from "./people.ts";
import type { PortalPlace } from "./portal.ts";

const run = promisify(execFile);

export async function fill(portal: PortalPlace, tenant: Tenant, rows: number): Promise<void> {
  // The short name comes from this test alone: no quotes in it.
  const sql = `
    SELECT set_config('test.tenant', id::text, false) FROM tenants WHERE slug = '${tenant.slug}';
    INSERT INTO blocked_ips (tenant_id, id, net, source, reason, account, times_banned, created_at, expires_at)
      SELECT current_setting('test.tenant')::uuid, gen_random_uuid(), set_masklen('10.0.0.0'::inet + n, 32)::cidr,
        CASE WHEN n % 5 = 0 THEN 'manual' ELSE 'detection' END,
        CASE WHEN n % 5 = 0 THEN 'Scanner' ELSE '5 wrong passwords within 60 s' END,
        CASE WHEN n % 5 = 0 THEN NULL ELSE (1000 + n % 40)::text END, 1 + n % 4,
        now() - n * interval '8 s', now() + interval '1 day' + n * interval '1 s'
      FROM generate_series(1, ${rows}) AS n;
    INSERT INTO allowed_ips (tenant_id, id, net, note, created_at, created_by)
      SELECT current_setting('test.tenant')::uuid, gen_random_uuid(), set_masklen('172.16.0.0'::inet + n, 32)::cidr, 'Phone ' || n,
        now() - n * interval '1 min', '${tenant.email}'
      FROM generate_series(1, ${rows}) AS n;
    INSERT INTO attack_rollups (tenant_id, pbx_id, bucket, attempts, bans)
      SELECT p.tenant_id, p.id, date_trunc('hour', now()) - n * interval '5 min', (n * 7919) % 120, (n * 104729) % 6
      FROM pbxes AS p, generate_series(0, 287) AS n WHERE p.tenant_id = current_setting('test.tenant')::uuid;
    INSERT INTO audit (tenant_id, id, seq, at, actor, action, outcome, subject, details, source, previous_hash, hash)
      SELECT current_setting('test.tenant')::uuid, gen_random_uuid(), 1000000 + n, now() - (${rows} - n) * interval '1 min', '${tenant.email}',
        CASE WHEN n % 3 = 0 THEN 'blocked_ips/unblock' ELSE 'blocked_ips/block' END, CASE WHEN n % 17 = 0 THEN 'refused' ELSE 'done' END,
        host('10.0.0.0'::inet + n), '{}', '127.0.0.1', '', ''
      FROM generate_series(1, ${rows}) AS n;
    WITH made AS (
      INSERT INTO users (id, email, password_hash, created_at) SELECT gen_random_uuid(), 'person-' || n || '@${tenant.slug}.example', '-', now()
        FROM generate_series(1, least(${rows}, 200) - 1) AS n RETURNING id)
    INSERT INTO memberships (tenant_id, user_id, role, invited_by, created_at)
      SELECT current_setting('test.tenant')::uuid, id, 'security_operator', '${tenant.email}', now() FROM made;`;
  await write(portal, sql);
}

/** All sessions of the tenant's first person as if she had shown her second factor an hour ago. */
export async function anHourLater(portal: PortalPlace, tenant: Tenant): Promise<void> {
  const sql = `
    UPDATE sessions SET data = jsonb_set(data, '{login,proven_at}', to_jsonb((data #>> '{login,proven_at}')::bigint - 3600))
      WHERE user_id = (SELECT id FROM users WHERE email = '${tenant.email}');`;
  await write(portal, sql);
}

/** People of every kind: at work, suspended, long away, without a second factor; an invitation that has expired. */
export async function people(portal: PortalPlace, tenant: Tenant): Promise<void> {
  const all = [
    ["anna.lindqvist", "administrator", "now() - interval '2 hours'", "NULL", "'\\x00'"],
    ["noc-night-shift.operations.centre", "security_operator", "now() - interval '4 min'", "NULL", "'\\x00'"],
    ["left-last-month", "security_operator", "now() - interval '31 days'", "now() - interval '30 days'", "'\\x00'"],
    ["external.auditor", "auditor", "now() - interval '140 days'", "NULL", "'\\x00'"],
    ["starts-monday", "auditor", "NULL", "NULL", "NULL"],
  ];
  const of = `FROM tenants WHERE slug = '${tenant.slug}'`;
  const one = ([name, role, used, suspended, seed]: string[]) => `
    WITH made AS (INSERT INTO users (id, email, password_hash, created_at, totp_sealed) VALUES (gen_random_uuid(), '${name}@${tenant.slug}.example', '-', now(), ${seed}) RETURNING id)
    INSERT INTO memberships (tenant_id, user_id, role, invited_by, created_at, last_used_at, suspended_at)
      SELECT tenants.id, made.id, '${role}', '${tenant.email}', now() - interval '200 days', ${used}, ${suspended} FROM made, (SELECT id ${of}) AS tenants;`;
  const expired = `
    INSERT INTO invitations (tenant_id, id, email, role, token_hash, invited_by, created_at, expires_at)
      SELECT id, gen_random_uuid(), 'too-late@${tenant.slug}.example', 'administrator', '\\x01', '${tenant.email}', now() - interval '9 days', now() - interval '2 days' ${of};`;
  await write(portal, all.map(one).join("") + expired);
}

/** PBXes as they look when one has taken changes back and another was tampered with. */
export async function trouble(portal: PortalPlace, tenant: Tenant, cautious: string, tampered: string): Promise<void> {
  const online = "enrolled_at = now(), link_id = gen_random_uuid(), node_id = (SELECT id FROM nodes ORDER BY seen_at DESC LIMIT 1), last_seen_at = now(), clock_ahead_ms = 42000, firewall = 'nftables', pbx_kind = 'asterisk', pbx_version = '22.10.1', agent_version = '0.1.0', registered = 41, proven_at = now() - interval '40 s', proven_ranges = 12";
  const withheld = [
    { change: { policy: 7 }, rolled_back: true, reason: "Registered phones fell from 41 to 12.", lines: ["no longer allowed: 198.51.100.0/24", "newly allowed: 198.51.100.7"] },
    { change: { ban: "203.0.113.0/24" }, rolled_back: false, reason: "It would cut off 29 of 41 registered phones, such as 203.0.113.5. Allow their addresses first.", lines: [] },
  ].map((change) => ({ ...change, at: new Date(Date.now() - 90_000).toISOString() }));
  const drift = { at: new Date(Date.now() - 600_000).toISOString(), found: ["somebody has changed the rules of our table"], repaired: true };
  const of = (name: string) => `FROM tenants AS t WHERE t.id = p.tenant_id AND t.slug = '${tenant.slug}' AND p.name = '${name}'`;
  await write(
    portal,
    `UPDATE pbxes AS p SET ${online}, applied_revision = t.policy_revision - 1, applied_ban_seq = t.ban_seq, withheld = '${JSON.stringify(withheld)}' ${of(cautious)};
     UPDATE pbxes AS p SET ${online}, applied_revision = t.policy_revision, applied_ban_seq = t.ban_seq, drift = '${JSON.stringify(drift)}' ${of(tampered)};`,
  );
}

async function write(portal: PortalPlace, sql: string): Promise<void> {
  const socket = path.join(portal.folder, "data/postgres/socket");
  await run("psql", ["-qX", "-v", "ON_ERROR_STOP=1", "-h", socket, "-U", "ringfence_admin", "-d", "ringfence", "-c", sql]);
}
