-- People, and what they are in which tenant. A person may belong to several tenants, so `users` has no tenant.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CONSTRAINT users_email_key UNIQUE,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL,
    -- The TOTP seed, sealed, from when a code has been shown for it. The last accepted step stops replay.
    totp_sealed bytea,
    totp_key_id text,
    totp_confirmed_at timestamptz,
    totp_last_step bigint NOT NULL DEFAULT 0
);
GRANT SELECT, INSERT, UPDATE ON users TO ringfence_app;

CREATE FUNCTION current_person() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('ringfence.user_id', true), '')::uuid;

CREATE TABLE memberships (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    user_id uuid NOT NULL REFERENCES users (id),
    role text NOT NULL CHECK (role IN ('super_administrator', 'administrator', 'security_operator', 'auditor')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_user_idx ON memberships (user_id);
ALTER TABLE memberships ENABLE ROW LEVEL SECURITY;
ALTER TABLE memberships FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON memberships USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
-- A person who logs in reads, and only reads, which tenants are hers before one is chosen.
CREATE POLICY own ON memberships FOR SELECT USING (user_id = current_person());
CREATE POLICY own_tenant ON tenants FOR SELECT USING (
    EXISTS (SELECT FROM memberships WHERE memberships.tenant_id = tenants.id AND memberships.user_id = current_person())
);
GRANT SELECT, INSERT, UPDATE, DELETE ON memberships TO ringfence_app;

CREATE TABLE recovery_codes (
    user_id uuid NOT NULL REFERENCES users (id),
    code_hash bytea NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (user_id, code_hash)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON recovery_codes TO ringfence_app;

-- Only a hash of the session's token; who has the database cannot use a session.
CREATE TABLE sessions (
    token_hash bytea PRIMARY KEY,
    user_id uuid REFERENCES users (id),
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_user_idx ON sessions (user_id);
CREATE INDEX sessions_expires_idx ON sessions (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO ringfence_app;

-- Sign-ups that wait for their mail's link. Nothing is made before it is followed.
CREATE TABLE sign_ups (
    token_hash bytea PRIMARY KEY,
    organisation text NOT NULL,
    slug text NOT NULL,
    email text NOT NULL,
    password_hash text NOT NULL,
    expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON sign_ups TO ringfence_app;

CREATE TABLE password_resets (
    token_hash bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id),
    expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON password_resets TO ringfence_app;

-- Failed tries of something that can be guessed, by what is guessed (`code <user id>`).
CREATE TABLE guesses (
    subject text PRIMARY KEY,
    failures integer NOT NULL,
    last_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guesses TO ringfence_app;

-- Mail to send; written in the transaction that causes it, delivered by a job.
CREATE TABLE mails (
    id uuid PRIMARY KEY,
    recipient text NOT NULL,
    subject text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL,
    sent_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL,
    last_error text NOT NULL DEFAULT ''
);
CREATE INDEX mails_due_idx ON mails (next_try_at) WHERE sent_at IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON mails TO ringfence_app;
