-- Which server node holds a PBX's stream, so that a node says once that it is alive, and not once for each agent: an agent is online while
-- it has a stream on a node that is alive. The node itself ends the streams of agents that fall silent.
CREATE TABLE nodes (
    id uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON nodes TO ringfence_app;
ALTER TABLE pbxes
    ADD COLUMN node_id uuid,
    -- How far the server's clock is ahead of the PBX's, in milliseconds.
    ADD COLUMN clock_ahead_ms bigint;

-- Rises with everything that may end a stream of the tenant's agents: revoked, removed, renamed, taken over by another node.
ALTER TABLE tenants ADD COLUMN roster bigint NOT NULL DEFAULT 0;
-- A node looks at all the tenants that it serves with one statement: for these numbers, and nothing more.
GRANT SELECT (policy_revision, ban_seq, roster) ON tenants TO ringfence_system;
