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
      FROM generate_series(1, ${rows}) AS n;`;
  const socket = path.join(portal.folder, "data/postgres/socket");
  await run("psql", ["-qX", "-v", "ON_ERROR_STOP=1", "-h", socket, "-U", "ringfence_admin", "-d", "ringfence", "-c", sql]);
}
