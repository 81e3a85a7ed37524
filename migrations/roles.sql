-- The three roles. Run once per database cluster by someone who may create roles; the private PostgreSQL does it by
-- itself. Give the two that log in a password of your own, or let them in by peer authentication.
-- ringfence_owner owns the tables and runs migrations; ringfence_app serves people and agents, owns nothing and cannot
-- bypass row security; ringfence_system runs the named jobs and sees only the columns that they need.
DO $$
BEGIN
    PERFORM pg_advisory_xact_lock(727365);
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ringfence_owner') THEN
        CREATE ROLE ringfence_owner LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ringfence_app') THEN
        CREATE ROLE ringfence_app LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ringfence_system') THEN
        CREATE ROLE ringfence_system LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
    END IF;
END $$;
