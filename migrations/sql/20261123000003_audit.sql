-- The audit log: append-only, hash-chained per tenant. The installation's own chain (sign-ups, logins to accounts that don't
-- exist) is that of the tenant with the nil id.
CREATE TABLE audit (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('done', 'refused')),
    subject text NOT NULL,
    -- Text, not jsonb: the hash covers these very bytes.
    details text NOT NULL,
    source text NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, seq),
    UNIQUE (tenant_id, id)
);
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT ON audit TO ringfence_app;

-- The end of each chain; its row lock puts the writers of a tenant in order.
CREATE TABLE audit_heads (
    tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
    seq bigint NOT NULL,
    hash bytea NOT NULL
);
ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_heads USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE ON audit_heads TO ringfence_app;

SELECT set_config('ringfence.tenant_id', '00000000-0000-0000-0000-000000000000', true);
INSERT INTO tenants (id, name, slug, created_at)
VALUES ('00000000-0000-0000-0000-000000000000', 'This installation', 'ringfence', now());
