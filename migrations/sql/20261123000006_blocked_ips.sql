-- Bans. One that holds has no `ended_at`; ended ones stay as the history of their source.
CREATE TABLE blocked_ips (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    net cidr NOT NULL,
    source text NOT NULL CHECK (source IN ('detection', 'manual')),
    reason text NOT NULL,
    account text,
    pbx_id uuid,
    blocked_by text,
    times_banned integer NOT NULL,
    evidence jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    ended_at timestamptz,
    ended_by text,
    -- What a search for a word looks through. Cut, because an index takes no row above 2,700 bytes.
    words text NOT NULL GENERATED ALWAYS AS (left(lower(reason || ' ' || COALESCE(account, '')), 300)) STORED,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, pbx_id) REFERENCES pbxes (tenant_id, id) ON DELETE SET NULL (pbx_id)
    -- The list reads indexes alone, which it can where a vacuum has been.
) WITH (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_scale_factor = 0.02);
-- One ban a network. Searches for networks compare with `=`, `<=`, `>=` only: those are leakproof, so row security lets them
-- use this index; the containment operators would read every tenant's rows.
CREATE UNIQUE INDEX blocked_ips_net_key ON blocked_ips (tenant_id, net) WHERE ended_at IS NULL;
-- The list in its order, with all that a filter compares: a page and its count never touch the rows beside it, which are wide
-- with evidence. LIKE isn't leakproof, so no index narrows it down below the tenant; it reads through this one.
CREATE INDEX blocked_ips_newest_idx ON blocked_ips (tenant_id, created_at DESC, id DESC) INCLUDE (net, source, pbx_id, words)
    WHERE ended_at IS NULL;
CREATE INDEX blocked_ips_pbx_idx ON blocked_ips (tenant_id, pbx_id, created_at DESC, id DESC);
CREATE INDEX blocked_ips_history_idx ON blocked_ips (tenant_id, net, created_at DESC);
CREATE INDEX blocked_ips_due_idx ON blocked_ips (expires_at) WHERE ended_at IS NULL AND expires_at IS NOT NULL;
ALTER TABLE blocked_ips ENABLE ROW LEVEL SECURITY;
ALTER TABLE blocked_ips FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON blocked_ips USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE ON blocked_ips TO ringfence_app;
CREATE POLICY jobs ON blocked_ips FOR SELECT TO ringfence_system USING (true);
GRANT SELECT (tenant_id, expires_at, ended_at) ON blocked_ips TO ringfence_system;

-- The numbered changes of each tenant's set of bans; agents that missed a few get these instead of the whole set.
CREATE TABLE ban_changes (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    seq bigint NOT NULL,
    net cidr NOT NULL,
    -- Added (or changed until when), or lifted.
    added boolean NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, seq)
);
ALTER TABLE ban_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE ban_changes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ban_changes USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, DELETE ON ban_changes TO ringfence_app;

-- Jobs go through the tenants one by one.
CREATE POLICY jobs ON tenants FOR SELECT TO ringfence_system USING (true);
GRANT SELECT (id) ON tenants TO ringfence_system;
