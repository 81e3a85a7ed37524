-- PBXes and the certificates of their agents.
CREATE TABLE pbxes (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    -- The enrolment token that may be used, by its id; used up or replaced, it is gone.
    token_id uuid,
    token_expires_at timestamptz,
    enrolled_at timestamptz,
    -- What the agent said of itself.
    agent_version text NOT NULL DEFAULT '',
    hostname text NOT NULL DEFAULT '',
    pbx_kind text NOT NULL DEFAULT '',
    pbx_version text NOT NULL DEFAULT '',
    firewall text NOT NULL DEFAULT '',
    -- The running stream; a newer one replaces it, and the end of an older one changes nothing.
    link_id uuid,
    last_seen_at timestamptz,
    applied_revision bigint NOT NULL DEFAULT 0,
    applied_digest bytea NOT NULL DEFAULT '',
    applied_ban_seq bigint NOT NULL DEFAULT 0,
    applied_took_us bigint NOT NULL DEFAULT 0,
    last_refusal text NOT NULL DEFAULT '',
    bans bigint NOT NULL DEFAULT 0,
    registered integer NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT pbxes_name_key UNIQUE (tenant_id, name)
);
ALTER TABLE pbxes ENABLE ROW LEVEL SECURITY;
ALTER TABLE pbxes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON pbxes USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON pbxes TO ringfence_app;

CREATE TABLE pbx_certificates (
    tenant_id uuid NOT NULL,
    -- SHA-256 of the certificate.
    fingerprint bytea NOT NULL,
    pbx_id uuid NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, fingerprint),
    FOREIGN KEY (tenant_id, pbx_id) REFERENCES pbxes (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX pbx_certificates_pbx_idx ON pbx_certificates (tenant_id, pbx_id);
ALTER TABLE pbx_certificates ENABLE ROW LEVEL SECURITY;
ALTER TABLE pbx_certificates FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON pbx_certificates USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON pbx_certificates TO ringfence_app;

-- Batches of reports that have been stored, so that one sent again is not stored again.
CREATE TABLE report_batches (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    pbx_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, pbx_id) REFERENCES pbxes (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX report_batches_received_idx ON report_batches (tenant_id, received_at);
ALTER TABLE report_batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE report_batches FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON report_batches USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, DELETE ON report_batches TO ringfence_app;

-- Failed attempts and bans in buckets of five minutes; what charts read.
CREATE TABLE attack_rollups (
    tenant_id uuid NOT NULL,
    pbx_id uuid NOT NULL,
    bucket timestamptz NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    bans bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, bucket, pbx_id),
    FOREIGN KEY (tenant_id, pbx_id) REFERENCES pbxes (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX attack_rollups_pbx_idx ON attack_rollups (tenant_id, pbx_id);
ALTER TABLE attack_rollups ENABLE ROW LEVEL SECURITY;
ALTER TABLE attack_rollups FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON attack_rollups USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON attack_rollups TO ringfence_app;
