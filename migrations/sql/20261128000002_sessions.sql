-- When a session was last used, to the minute; sessions of before are taken for used now.
ALTER TABLE sessions ADD COLUMN last_seen_at timestamptz NOT NULL DEFAULT now();
-- All sessions of a person that began before it are over, also one that gets a new id at the very moment that they are deleted.
ALTER TABLE users ADD COLUMN sessions_since timestamptz;
-- The sessions in a tenant, for its administrators.
CREATE INDEX sessions_tenant_idx ON sessions ((data -> 'login' ->> 'tenant_id'));
