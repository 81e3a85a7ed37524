-- Who has access to a tenant since when, by whom, and when she used it last.
ALTER TABLE memberships
    ADD COLUMN invited_by text NOT NULL DEFAULT '',
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN suspended_at timestamptz;

-- Who has been invited and has not come yet. The link holds the tenant and a token, of which only a hash is kept.
CREATE TABLE invitations (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('super_administrator', 'administrator', 'security_operator', 'auditor')),
    token_hash bytea NOT NULL,
    invited_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT invitations_email_key UNIQUE (tenant_id, email),
    CONSTRAINT invitations_token_key UNIQUE (tenant_id, token_hash)
);
ALTER TABLE invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE invitations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON invitations USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
-- A person who logs in sees, and only sees, whether she is invited somewhere.
CREATE POLICY own ON invitations FOR SELECT USING (email = (SELECT users.email FROM users WHERE users.id = current_person()));
CREATE INDEX invitations_person_idx ON invitations (email);
GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO ringfence_app;
