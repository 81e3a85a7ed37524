-- The W3C traceparent of the change that raised the policy's revision last; unset while traces are off.
ALTER TABLE tenants ADD COLUMN policy_trace text CONSTRAINT tenants_policy_trace_check CHECK (length(policy_trace) <= 55);
-- Whether the schema is as new as the program, for /readyz.
GRANT SELECT ON _sqlx_migrations TO ringfence_app;
