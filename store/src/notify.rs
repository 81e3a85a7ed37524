//! Hints that something changed, over PostgreSQL's LISTEN and NOTIFY. Never the truth: that is in the rows.

use policy::ids::TenantId;
use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::db::{Store, StoreError};

const CHANNEL: &str = "ringfence";

/// Tells the other nodes that something of tenants changed, in a transaction of its own. A topic is a short word without a colon.
pub async fn publish<'a>(
    store: &Store,
    node: Uuid,
    hints: impl IntoIterator<Item = (TenantId, &'a str)>,
) -> Result<(), StoreError> {
    let hints: Vec<String> = hints.into_iter().map(|(tenant, topic)| format!("{tenant}:{topic}:{node}")).collect();
    let mut tx = store.platform().await?;
    sqlx::query!("SELECT pg_notify($1, hint) FROM unnest($2::text[]) AS hints (hint)", CHANNEL, &hints)
        .fetch_all(tx.conn())
        .await?;
    tx.commit().await
}

/// Hears what other nodes publish.
#[derive(Debug)]
pub struct Listener {
    listener: PgListener,
    node: Uuid,
}

impl Listener {
    /// Begins to listen, on a node.
    pub async fn start(store: &Store, node: Uuid) -> Result<Self, StoreError> {
        let mut listener = PgListener::connect_with(store.app_pool()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self { listener, node })
    }

    /// The next hint: tenant and topic. `None` when the connection was lost in between and hints may be missing.
    pub async fn next(&mut self) -> Result<Option<(TenantId, String)>, StoreError> {
        loop {
            let Some(notification) = self.listener.try_recv().await? else {
                return Ok(None);
            };
            let mut parts = notification.payload().split(':');
            // Nodes of earlier versions don't say who they are.
            if let (Some(tenant), Some(topic), from) = (parts.next(), parts.next(), parts.next())
                && let Ok(tenant) = tenant.parse()
                && from.is_none_or(|from| from.parse() != Ok(self.node))
            {
                return Ok(Some((tenant, topic.to_owned())));
            }
        }
    }
}
