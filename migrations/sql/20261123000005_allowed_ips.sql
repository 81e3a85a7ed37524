-- Allowed IPs: a network or a domain name, never both.
CREATE TABLE allowed_ips (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    net cidr,
    domain text,
    note text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT allowed_ips_net_key UNIQUE (tenant_id, net),
    CONSTRAINT allowed_ips_domain_key UNIQUE (tenant_id, domain),
    CHECK (num_nonnulls(net, domain) = 1)
);
CREATE INDEX allowed_ips_newest_idx ON allowed_ips (tenant_id, created_at DESC, id DESC);
ALTER TABLE allowed_ips ENABLE ROW LEVEL SECURITY;
ALTER TABLE allowed_ips FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON allowed_ips USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON allowed_ips TO ringfence_app;
-- The job that ends what has expired sees which tenants have something to end, nothing else.
CREATE POLICY jobs ON allowed_ips FOR SELECT TO ringfence_system USING (true);
GRANT SELECT (tenant_id, expires_at) ON allowed_ips TO ringfence_system;
CREATE INDEX allowed_ips_due_idx ON allowed_ips (expires_at) WHERE expires_at IS NOT NULL;
