//! The doors to the database. The only place where transactions begin.

use std::ops::{Deref, DerefMut};
use std::str::FromStr as _;

use policy::ids::{TenantId, UserId};
use policy::metrics::DB_WAIT;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, PgPool, Postgres, Transaction};

/// What can go wrong with the database, as far as callers act on it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique constraint refused; its name is API.
    #[error("{constraint} holds already")]
    Conflict {
        /// Name of the constraint.
        constraint: String,
    },
    /// A role that could bypass row security, or one that can't be used.
    #[error("{0}")]
    UnsafeRole(String),
    /// The schema could not be brought up to date.
    #[error("bringing the schema up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Anything else.
    #[error("the database")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(|db| if db.is_unique_violation() { db.constraint() } else { None }) {
            Some(constraint) => Self::Conflict { constraint: constraint.to_owned() },
            None => Self::Database(error),
        }
    }
}

/// The database, as the two restricted roles.
#[derive(Debug, Clone)]
pub struct Store {
    app: PgPool,
    system: PgPool,
}

impl Store {
    /// Connects as the application's role and as the jobs' role.
    ///
    /// # Errors
    /// When the database can't be reached, or a role could bypass row security.
    pub async fn connect(app_url: &str, system_url: &str, max_connections: u32) -> Result<Self, StoreError> {
        let store = Self { app: pool(app_url, max_connections).await?, system: pool(system_url, 2).await? };
        refuse_unsafe(&store.app).await?;
        refuse_unsafe(&store.system).await?;
        Ok(store)
    }

    /// A transaction on the installation's tables.
    pub async fn platform(&self) -> Result<PlatformTx, StoreError> {
        begin(&self.app, "BEGIN", None, None).await
    }

    /// A transaction on the installation's tables in which a person may read her own memberships.
    pub async fn person(&self, user: UserId) -> Result<PlatformTx, StoreError> {
        begin(&self.app, "BEGIN", None, Some(user)).await
    }

    /// A transaction on one tenant's tables; PostgreSQL shows it the rows of no other.
    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantTx, StoreError> {
        Ok(TenantTx { tx: begin(&self.app, "BEGIN", Some(tenant), None).await?, tenant })
    }

    /// The same for what agents make run over and over: PostgreSQL plans it once for a connection, not each time.
    pub async fn tenant_for_agents(&self, tenant: TenantId) -> Result<TenantTx, StoreError> {
        let tx = begin(&self.app, "BEGIN; SET LOCAL plan_cache_mode = auto", Some(tenant), None).await?;
        Ok(TenantTx { tx, tenant })
    }

    /// A transaction that only reads one tenant's tables, all of one moment, and waits for nobody who writes.
    pub async fn tenant_as_of_now(&self, tenant: TenantId) -> Result<TenantTx, StoreError> {
        let tx = begin(&self.app, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", Some(tenant), None).await?;
        Ok(TenantTx { tx, tenant })
    }

    /// A transaction as the jobs' role, which sees only the columns that say what is due.
    pub(crate) async fn system(&self) -> Result<PlatformTx, StoreError> {
        begin(&self.system, "BEGIN", None, None).await
    }

    /// How many connections of the application's role are open, how many of them idle, and how many there may be.
    pub fn connections(&self) -> (u32, u32, u32) {
        let open = self.app.size();
        // Counted one after the other: for a moment more may be idle than open.
        let idle = u32::try_from(self.app.num_idle()).unwrap_or(u32::MAX).min(open);
        (open, idle, self.app.options().get_max_connections())
    }

    /// Whether the schema is at least as new as this program, as the application's role sees it.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        let mut tx = self.platform().await?;
        let newest =
            sqlx::query_scalar!("SELECT MAX(version) FROM _sqlx_migrations WHERE success").fetch_one(tx.conn()).await?;
        tx.commit().await?;
        let ours = sqlx::migrate!("../migrations/sql").iter().map(|migration| migration.version).max();
        Ok(newest >= ours)
    }

    /// The pool of the application's role, for the listener on notifications.
    pub(crate) fn app_pool(&self) -> &PgPool {
        &self.app
    }
}

/// Begins a transaction of a tenant, of a person, or of neither. Both are said each time and in the round trip that begins: whatever a
/// connection was used for before, and however that ended, it shows nobody else's rows.
#[expect(clippy::disallowed_methods, reason = "the one place where transactions begin")]
async fn begin(
    pool: &PgPool,
    begin: &'static str,
    tenant: Option<TenantId>,
    user: Option<UserId>,
) -> Result<PlatformTx, StoreError> {
    let asked = tokio::time::Instant::now();
    // An id is letters, digits and hyphens.
    let tenant = tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
    let user = user.map(|user| user.to_string()).unwrap_or_default();
    let begin = format!("{begin}; SET LOCAL ringfence.tenant_id = '{tenant}'; SET LOCAL ringfence.user_id = '{user}'");
    let tx = pool.begin_with(AssertSqlSafe(begin)).await?;
    metrics::histogram!(DB_WAIT.name).record(asked.elapsed());
    Ok(PlatformTx { tx })
}

async fn pool(url: &str, max_connections: u32) -> Result<PgPool, StoreError> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("ringfence")
        // Lists have optional filters; only a plan made for the very parameters uses the right index.
        // Reading at random costs little more than in order on the disks of these years; with the default of 4 the
        // planner reads whole tables where an index would do.
        .options([
            ("plan_cache_mode", "force_custom_plan"),
            ("random_page_cost", "1.1"),
            ("statement_timeout", "20000"),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Debug, std::time::Duration::from_millis(500));
    Ok(PgPoolOptions::new().max_connections(max_connections).connect_with(options).await?)
}

async fn refuse_unsafe(pool: &PgPool) -> Result<(), StoreError> {
    let role = sqlx::query!(
        r#"SELECT rolname AS "name!", rolsuper OR rolbypassrls AS "unsafe!",
                  EXISTS (SELECT FROM pg_class WHERE relowner = pg_roles.oid AND relrowsecurity) AS "owner!"
           FROM pg_roles WHERE rolname = current_user"#
    )
    .fetch_one(pool)
    .await?;
    if role.r#unsafe || role.owner {
        return Err(StoreError::UnsafeRole(format!(
            "the database role “{}” could bypass row security; use ringfence_app and ringfence_system as migrations/roles.sql makes them",
            role.name
        )));
    }
    Ok(())
}

/// Brings the schema up to date, as the owner's role.
///
/// # Errors
/// When the database can't be reached or a migration fails.
pub async fn migrate(owner_url: &str) -> Result<(), StoreError> {
    let mut connection = PgConnectOptions::from_str(owner_url)?.connect().await?;
    sqlx::query!("SET ROLE ringfence_owner").execute(&mut connection).await?;
    sqlx::migrate!("../migrations/sql").run(&mut connection).await?;
    Ok(())
}

/// A transaction on tables that belong to no tenant.
#[derive(Debug)]
pub struct PlatformTx {
    tx: Transaction<'static, Postgres>,
}

impl PlatformTx {
    /// Keeps what was written.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }

    /// Forgets what was written.
    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.tx.rollback().await?)
    }

    /// The commit doesn't wait for the disk: for what a crash of the database may take back, since it is told again.
    pub async fn may_be_lost(&mut self) -> Result<(), StoreError> {
        sqlx::query_scalar!("SELECT set_config('synchronous_commit', 'off', true)").fetch_one(self.conn()).await?;
        Ok(())
    }

    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// A transaction on the tables of one tenant. Also reaches tables that belong to no tenant.
#[derive(Debug)]
pub struct TenantTx {
    tx: PlatformTx,
    tenant: TenantId,
}

impl TenantTx {
    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Keeps what was written.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await
    }

    /// Forgets what was written.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.tx.rollback().await
    }
}

impl Deref for TenantTx {
    type Target = PlatformTx;
    fn deref(&self) -> &PlatformTx {
        &self.tx
    }
}

impl DerefMut for TenantTx {
    fn deref_mut(&mut self) -> &mut PlatformTx {
        &mut self.tx
    }
}
