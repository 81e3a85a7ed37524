-- Tenants, and the row that every tenant table hangs from.
GRANT USAGE ON SCHEMA public TO ringfence_app, ringfence_system;

-- The tenant of the running transaction; NULL when none was set, and then no row of any tenant is seen.
CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('ringfence.tenant_id', true), '')::uuid;

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL CONSTRAINT tenants_slug_key UNIQUE,
    created_at timestamptz NOT NULL,
    -- Rises by one with every change of the policy that PBXes enforce.
    policy_revision bigint NOT NULL DEFAULT 1,
    -- Number of the last change of the set of bans, and the digest of the set after it.
    ban_seq bigint NOT NULL DEFAULT 0,
    ban_digest bytea NOT NULL DEFAULT '\x00000000000000000000000000000000',
    -- The detection rule.
    detect_failures integer NOT NULL DEFAULT 5,
    detect_window_seconds integer NOT NULL DEFAULT 60,
    detect_ban_seconds integer NOT NULL DEFAULT 3600,
    detect_max_ban_seconds integer NOT NULL DEFAULT 604800
);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants USING (id = current_tenant()) WITH CHECK (id = current_tenant());
GRANT SELECT, INSERT, UPDATE ON tenants TO ringfence_app;

-- Names and values of installation-wide secrets (CA key, token key), each sealed with the master key.
CREATE TABLE platform_secrets (
    name text PRIMARY KEY,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON platform_secrets TO ringfence_app;

-- Short names are public (they are part of addresses); whether one is taken may be asked without a tenant.
-- A definer that row security does not bind is avoided: the names are kept a second time, alone.
CREATE TABLE slugs (slug text PRIMARY KEY);
GRANT SELECT, INSERT ON slugs TO ringfence_app;
