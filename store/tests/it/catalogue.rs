//! What the schema promises about tenants, read from PostgreSQL's catalogue. A new table, policy, grant, view or function that
//! is not what every other is must be listed here with its reason, or the test fails.

use sqlx::{PgConnection, Row as _};
use store::testing::TestDb;

use crate::world::connect;

/// Tables that belong to no tenant, and why.
const WITHOUT_TENANT: [(&str, &str); 14] = [
    ("tenants", "is the tenant; its id is compared"),
    ("platform_secrets", "secrets of the installation, sealed with the master key"),
    ("slugs", "short names are public"),
    ("users", "a person may belong to several tenants"),
    ("recovery_codes", "a person's"),
    ("sessions", "a person's"),
    ("sign_ups", "before there is a tenant"),
    ("password_resets", "a person's"),
    ("guesses", "before it is known who somebody is"),
    ("login_failures", "before it is known who somebody is"),
    ("login_waits", "before it is known who somebody is"),
    ("login_passes", "a person's"),
    ("mails", "to a person"),
    ("nodes", "the installation's: which of its servers are alive"),
];

const OWN: &str = "(tenant_id = current_tenant())";

/// Policies beside the one of the tenant itself: table, name, command, roles, USING.
const OTHER_POLICIES: [(&str, &str, &str, &str, &str); 6] = [
    // Which tenants are hers, before she has chosen one.
    ("memberships", "own", "r", "public", "(user_id = current_person())"),
    (
        "tenants",
        "own_tenant",
        "r",
        "public",
        "(EXISTS ( SELECT FROM memberships WHERE ((memberships.tenant_id = tenants.id) AND (memberships.user_id = current_person()))))",
    ),
    // Whether she is invited somewhere, when she is in no tenant.
    (
        "invitations",
        "own",
        "r",
        "public",
        "(email = ( SELECT users.email FROM users WHERE (users.id = current_person())))",
    ),
    // Jobs see of every tenant what COLUMNS_OF_JOBS grants.
    ("allowed_ips", "jobs", "r", "ringfence_system", "true"),
    ("blocked_ips", "jobs", "r", "ringfence_system", "true"),
    ("tenants", "jobs", "r", "ringfence_system", "true"),
];

/// All that the jobs' role may do: read these columns.
const COLUMNS_OF_JOBS: [&str; 9] = [
    "allowed_ips.expires_at",
    "allowed_ips.tenant_id",
    "blocked_ips.ended_at",
    "blocked_ips.expires_at",
    "blocked_ips.tenant_id",
    "tenants.ban_seq",
    "tenants.id",
    "tenants.policy_revision",
    "tenants.roster",
];

/// Indexes of tenants' tables that begin with something else.
const OTHER_INDEXES: [(&str, &str); 4] = [
    ("memberships_user_idx", "a person's memberships, before a tenant is chosen"),
    ("invitations_person_idx", "a person's invitations, when she is in no tenant"),
    ("allowed_ips_due_idx", "the job looks across tenants"),
    ("blocked_ips_due_idx", "the job looks across tenants"),
];

/// What of the schema does not keep tenants apart; empty when all is well.
pub(crate) async fn holes(admin: &mut PgConnection) -> Vec<String> {
    let mut holes = Vec::new();
    tables(admin, &mut holes).await;
    policies(admin, &mut holes).await;
    grants(admin, &mut holes).await;
    roles(admin, &mut holes).await;
    keys(admin, &mut holes).await;
    bypasses(admin, &mut holes).await;
    holes
}

async fn strings(admin: &mut PgConnection, sql: &'static str) -> Vec<Vec<String>> {
    let rows = sqlx::query(sql).fetch_all(admin).await.unwrap();
    rows.iter().map(|row| (0..row.len()).map(|index| row.get(index)).collect()).collect()
}

/// Tables that row security must keep: those with a tenant, and `tenants`.
pub(crate) async fn guarded_tables(admin: &mut PgConnection) -> Vec<String> {
    let rows = strings(
        admin,
        "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
           AND (c.relname = 'tenants' OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id' AND NOT attisdropped))
         ORDER BY 1",
    )
    .await;
    rows.into_iter().flatten().collect()
}

async fn tables(admin: &mut PgConnection, holes: &mut Vec<String>) {
    let guarded = guarded_tables(admin).await;
    let all = strings(
        admin,
        "SELECT relname::text, relrowsecurity::text, relforcerowsecurity::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> '_sqlx_migrations' ORDER BY 1",
    )
    .await;
    for row in &all {
        let [table, enabled, forced] = row.as_slice() else { unreachable!() };
        let listed = WITHOUT_TENANT.iter().any(|(name, _)| name == table);
        if !guarded.contains(table) && !listed {
            holes.push(format!("{table} has no tenant_id and no listed reason"));
        }
        if guarded.contains(table) && (enabled != "true" || forced != "true") {
            holes.push(format!("{table} does not enable and force row security"));
        }
    }
    for (listed, _) in WITHOUT_TENANT {
        if !all.iter().any(|row| row[0] == listed) {
            holes.push(format!("{listed} is listed but isn't there"));
        }
    }
}

async fn policies(admin: &mut PgConnection, holes: &mut Vec<String>) {
    let policies = strings(
        admin,
        r"SELECT c.relname::text, p.polname::text, p.polcmd::text || CASE WHEN p.polpermissive THEN '' ELSE ' restrictive' END,
                 (SELECT string_agg(COALESCE(r.rolname, 'public'), ',') FROM unnest(p.polroles) AS id LEFT JOIN pg_roles r ON r.oid = id),
                 regexp_replace(COALESCE(pg_get_expr(p.polqual, p.polrelid), ''), '\s+', ' ', 'g'),
                 COALESCE(pg_get_expr(p.polwithcheck, p.polrelid), '')
          FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid ORDER BY 1, 2",
    )
    .await;
    for table in guarded_tables(admin).await {
        let own = if table == "tenants" { "(id = current_tenant())" } else { OWN };
        if !policies.contains(&[&table, "tenant", "*", "public", own, own].map(str::to_owned).to_vec()) {
            holes.push(format!("{table} has no policy “tenant” with {own} for reading and writing"));
        }
    }
    for policy in policies.iter().filter(|policy| policy[1] != "tenant") {
        let listed = OTHER_POLICIES.iter().any(|(table, name, command, roles, using)| {
            [*table, *name, *command, *roles, *using, ""].iter().eq(policy)
        });
        if !listed {
            holes.push(format!("policy {} of {} is not listed: {:?}", policy[1], policy[0], &policy[2..]));
        }
    }
    for row in strings(admin, "SELECT proname::text, pg_get_function_sqlbody(oid) FROM pg_proc WHERE proname IN ('current_tenant', 'current_person') ORDER BY 1").await {
        let setting = if row[0] == "current_tenant" { "ringfence.tenant_id" } else { "ringfence.user_id" };
        if row[1] != format!("RETURN (NULLIF(current_setting('{setting}'::text, true), ''::text))::uuid") {
            holes.push(format!("{} is {}", row[0], row[1]));
        }
    }
}

async fn grants(admin: &mut PgConnection, holes: &mut Vec<String>) {
    let on_tables = strings(
        admin,
        "SELECT c.relname::text, COALESCE(r.rolname, 'PUBLIC')::text, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner ORDER BY 1, 2, 3",
    )
    .await;
    for grant in &on_tables {
        let [table, role, privilege] = grant.as_slice() else { unreachable!() };
        let fine = role == "ringfence_app"
            && match table.as_str() {
                "audit" => ["SELECT", "INSERT"].contains(&privilege.as_str()),
                _ => ["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&privilege.as_str()),
            };
        if !fine {
            holes.push(format!("{role} may {privilege} {table}"));
        }
    }
    let on_columns = strings(
        admin,
        "SELECT c.relname::text || '.' || at.attname, COALESCE(r.rolname, 'PUBLIC')::text, a.privilege_type
         FROM pg_class c JOIN pg_attribute at ON at.attrelid = c.oid, aclexplode(at.attacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1",
    )
    .await;
    for grant in &on_columns {
        let [column, role, privilege] = grant.as_slice() else { unreachable!() };
        if role != "ringfence_system" || privilege != "SELECT" || !COLUMNS_OF_JOBS.contains(&column.as_str()) {
            holes.push(format!("{role} may {privilege} {column}"));
        }
    }
}

async fn roles(admin: &mut PgConnection, holes: &mut Vec<String>) {
    for row in strings(
        admin,
        "SELECT rolname::text, (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)::text,
                EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid)::text,
                (EXISTS (SELECT FROM pg_class WHERE relowner = pg_roles.oid) OR EXISTS (SELECT FROM pg_proc WHERE proowner = pg_roles.oid)
                 OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = pg_roles.oid))::text
         FROM pg_roles WHERE rolname IN ('ringfence_app', 'ringfence_system')",
    )
    .await
    {
        for (wrong, what) in row[1..].iter().zip(["has an attribute that could bypass row security", "is a member of another role", "owns something"]) {
            if wrong == "true" {
                holes.push(format!("{} {what}", row[0]));
            }
        }
    }
}

async fn keys(admin: &mut PgConnection, holes: &mut Vec<String>) {
    let first_columns = strings(
        admin,
        "SELECT t.relname::text, i.relname::text, a.attname::text, x.indisunique::text FROM pg_index x
         JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
         JOIN pg_attribute a ON a.attrelid = i.oid AND a.attnum = 1
         WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> 'tenants'
           AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.oid AND attname = 'tenant_id')",
    )
    .await;
    for row in first_columns {
        let listed = row[3] == "false" && OTHER_INDEXES.iter().any(|(name, _)| *name == row[1]);
        if row[2] != "tenant_id" && !listed {
            holes.push(format!("index {} of {} begins with {}", row[1], row[0], row[2]));
        }
    }
    let foreign = strings(
        admin,
        "SELECT f.conname::text FROM pg_constraint f JOIN pg_attribute tenant ON tenant.attrelid = f.confrelid AND tenant.attname = 'tenant_id'
         WHERE f.contype = 'f' AND NOT tenant.attnum = ANY (f.confkey)",
    )
    .await;
    for row in foreign {
        holes.push(format!("foreign key {} could point into another tenant", row[0]));
    }
    for table in guarded_tables(admin).await {
        let keyed: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = $1::regclass AND indisprimary)")
                .bind(&table)
                .fetch_one(&mut *admin)
                .await
                .unwrap();
        if !keyed {
            holes.push(format!("{table} has no primary key"));
        }
    }
}

/// Ways around row security: views and functions run as whoever made them.
async fn bypasses(admin: &mut PgConnection, holes: &mut Vec<String>) {
    for row in strings(
        admin,
        "SELECT 'view ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'f')
         UNION ALL SELECT 'security definer function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef",
    )
    .await
    {
        holes.push(format!("{} could bypass row security", row[0]));
    }
}

#[tokio::test]
async fn the_schema_keeps_tenants_apart() {
    let db = TestDb::new().await;
    let mut admin = connect(&db.admin_url).await;
    assert_eq!(holes(&mut admin).await, Vec::<String>::new());
    assert!(guarded_tables(&mut admin).await.len() >= 10);
}

/// The walk above is worth something only if it finds what is taken out.
#[tokio::test]
async fn every_protection_taken_out_is_found() {
    let db = TestDb::new().await;
    let mut admin = connect(&db.admin_url).await;
    for (sabotage, found) in [
        ("DROP POLICY tenant ON pbxes", "pbxes has no policy"),
        ("ALTER POLICY tenant ON pbxes WITH CHECK (true)", "pbxes has no policy"),
        ("ALTER POLICY tenant ON pbxes USING (true)", "pbxes has no policy"),
        ("CREATE POLICY open ON blocked_ips USING (true)", "policy open of blocked_ips"),
        ("ALTER POLICY jobs ON blocked_ips TO public", "policy jobs of blocked_ips"),
        ("ALTER TABLE audit NO FORCE ROW LEVEL SECURITY", "audit does not"),
        ("ALTER TABLE tenants DISABLE ROW LEVEL SECURITY", "tenants does not"),
        (
            "CREATE OR REPLACE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE RETURN (SELECT id FROM tenants LIMIT 1)",
            "current_tenant is",
        ),
        ("GRANT DELETE ON audit TO ringfence_app", "ringfence_app may DELETE audit"),
        ("GRANT UPDATE (actor) ON audit TO ringfence_app", "ringfence_app may UPDATE audit.actor"),
        ("GRANT TRUNCATE ON pbxes TO ringfence_app", "ringfence_app may TRUNCATE pbxes"),
        ("GRANT SELECT ON pbxes TO PUBLIC", "PUBLIC may SELECT pbxes"),
        ("GRANT SELECT ON blocked_ips TO ringfence_system", "ringfence_system may SELECT blocked_ips"),
        ("GRANT SELECT (reason) ON blocked_ips TO ringfence_system", "ringfence_system may SELECT blocked_ips.reason"),
        ("ALTER TABLE pbxes OWNER TO ringfence_app", "ringfence_app owns"),
        ("ALTER ROLE ringfence_app BYPASSRLS", "ringfence_app has an attribute"),
        ("GRANT ringfence_owner TO ringfence_system", "ringfence_system is a member"),
        ("CREATE TABLE notes (id uuid PRIMARY KEY)", "notes has no tenant_id and no listed reason"),
        ("CREATE TABLE notes (tenant_id uuid, id uuid)", "notes does not enable"),
        ("CREATE UNIQUE INDEX wrong ON pbxes (id)", "index wrong"),
        ("CREATE INDEX wrong ON pbxes (name)", "index wrong"),
        (
            "CREATE UNIQUE INDEX wrong ON pbxes (id); ALTER TABLE attack_rollups ADD CONSTRAINT across FOREIGN KEY (pbx_id) REFERENCES pbxes (id)",
            "foreign key across",
        ),
        ("CREATE VIEW everything AS SELECT * FROM pbxes", "view everything"),
        (
            "CREATE FUNCTION everything() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM pbxes'",
            "security definer function everything",
        ),
    ] {
        sqlx::raw_sql("BEGIN").execute(&mut admin).await.unwrap();
        sqlx::raw_sql(sabotage).execute(&mut admin).await.unwrap();
        let holes = holes(&mut admin).await;
        assert!(holes.iter().any(|hole| hole.contains(found)), "{sabotage}: {holes:?}");
        sqlx::raw_sql("ROLLBACK").execute(&mut admin).await.unwrap();
    }
}
