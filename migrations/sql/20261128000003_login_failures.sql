-- Tries of passwords that failed, by where they came from (an address, or an IPv6 /64) and at which account: a hash of the e-mail address,
-- whether there is one or not. All nodes count here.
CREATE TABLE login_failures (
    source text NOT NULL,
    account bytea NOT NULL,
    -- The account's person, if there is one. No foreign key: looking it up would tell by its time.
    user_id uuid,
    failures integer NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (source, account)
);
CREATE INDEX login_failures_last_idx ON login_failures (last_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON login_failures TO ringfence_app;

-- Sources that have come to the end of a ladder, and until when they wait.
CREATE TABLE login_waits (
    source text PRIMARY KEY,
    until timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON login_waits TO ringfence_app;

-- Links by mail with which the owner of an account that others guess at doesn't have to wait.
CREATE TABLE login_passes (
    token_hash bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id),
    tries integer NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL
);
CREATE INDEX login_passes_user_idx ON login_passes (user_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON login_passes TO ringfence_app;

-- Who attacks the portal's login is blocked at the PBXes of those whom he attacks.
ALTER TABLE blocked_ips DROP CONSTRAINT blocked_ips_source_check;
ALTER TABLE blocked_ips ADD CONSTRAINT blocked_ips_source_check CHECK (source IN ('detection', 'manual', 'portal'));
