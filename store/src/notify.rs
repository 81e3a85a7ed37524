//! Hints that something changed, over PostgreSQL's LISTEN and NOTIFY. Never the truth: that is in the rows.

use policy::ids::TenantId;
use sqlx::postgres::PgListener;

use crate::db::{Store, StoreError, TenantTx};

const CHANNEL: &str = "ringfence";

/// Tells, at commit, that something of the tenant changed. `topic` is a short word without a colon.
pub async fn publish(tx: &mut TenantTx, topic: &str) -> Result<(), StoreError> {
    let payload = format!("{}:{topic}", tx.tenant());
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, payload).fetch_one(tx.conn()).await?;
    Ok(())
}

/// Hears what all nodes publish.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// Begins to listen.
    pub async fn start(store: &Store) -> Result<Self, StoreError> {
        let mut listener = PgListener::connect_with(store.app_pool()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// The next hint: tenant and topic. `None` when the connection was lost in between and hints may be missing.
    pub async fn next(&mut self) -> Result<Option<(TenantId, String)>, StoreError> {
        loop {
            let Some(notification) = self.0.try_recv().await? else {
                return Ok(None);
            };
            if let Some((tenant, topic)) = notification.payload().split_once(':')
                && let Ok(tenant) = tenant.parse()
            {
                return Ok(Some((tenant, topic.to_owned())));
            }
        }
    }
}
