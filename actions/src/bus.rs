//! Hints that something of a tenant changed, to this node and to the others. Never the truth: who misses one finds it in the rows, and
//! everybody looks again every few seconds.

use std::time::Duration;

use policy::ids::TenantId;
use policy::metrics::{HINTS, HINTS_LOST};
use store::TenantTx;
use tokio::sync::{broadcast, mpsc};

use crate::ctx::Ctx;
use crate::error::{ActError, chain};

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The policy that PBXes enforce.
    Policy,
    /// The set of bans that PBXes hold.
    Bans,
    /// A PBX: state, name, what it applied.
    Pbxes,
    /// What may end a stream of an agent: revoked, removed, renamed, taken over.
    Roster,
    /// The list of allowed IPs.
    AllowedIps,
    /// The list of blocked IPs.
    BlockedIps,
    /// The audit log.
    Audit,
    /// Sessions or roles of people.
    Sessions,
    /// Hints may have been lost: look at everything.
    Everything,
}

impl Topic {
    const ALL: [Self; 9] = [
        Self::Policy,
        Self::Bans,
        Self::Pbxes,
        Self::Roster,
        Self::AllowedIps,
        Self::BlockedIps,
        Self::Audit,
        Self::Sessions,
        Self::Everything,
    ];

    /// Its name on the notification channel and in the browser's stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Bans => "bans",
            Self::Pbxes => "pbxes",
            Self::Roster => "roster",
            Self::AllowedIps => "allowed_ips",
            Self::BlockedIps => "blocked_ips",
            Self::Audit => "audit",
            Self::Sessions => "sessions",
            Self::Everything => "everything",
        }
    }

    /// The topic of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == name)
    }
}

/// One hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// Whose; `None` for all tenants.
    pub tenant_id: Option<TenantId>,
    /// What.
    pub topic: Topic,
}

impl Change {
    /// Whether it concerns a tenant.
    pub fn concerns(&self, tenant: TenantId) -> bool {
        self.tenant_id.is_none_or(|id| id == tenant)
    }
}

impl Change {
    /// To look at everything, of all tenants: hints may have been lost.
    pub const EVERYTHING: Self = Self { tenant_id: None, topic: Topic::Everything };
}

/// How hints reach the other nodes.
#[derive(Debug, Default)]
pub enum Between {
    /// As notifications of the database, raised by the very transaction that changes something.
    #[default]
    Database,
    /// By whoever takes them from this channel after the commit. What it has no room for is lost, and looked for by the others.
    Carrier(mpsc::Sender<Change>),
}

/// Commits, and tells this node and the others what has changed. Telling neither waits nor fails.
pub(crate) async fn commit(
    ctx: &Ctx,
    mut tx: TenantTx,
    topics: impl IntoIterator<Item = Topic>,
) -> Result<(), ActError> {
    match ctx.between() {
        Between::Database => {
            for topic in topics {
                store::notify::publish(&mut tx, topic.as_str()).await?;
            }
            tx.commit().await?;
        }
        Between::Carrier(carrier) => {
            let tenant_id = Some(tx.tenant());
            tx.commit().await?;
            for topic in topics {
                let change = Change { tenant_id, topic };
                ctx.bus().send(change);
                if carrier.try_send(change).is_err() {
                    tracing::debug!(topic = topic.as_str(), "a hint to the other nodes is lost; they look for it");
                }
            }
        }
    }
    Ok(())
}

/// Spreads hints inside this node.
#[derive(Debug, Clone)]
pub struct Bus(broadcast::Sender<Change>);

impl Default for Bus {
    fn default() -> Self {
        Self(broadcast::Sender::new(1024))
    }
}

impl Bus {
    /// Hears all hints from here on. A receiver that lags must look at everything.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }

    /// Spreads a hint on this node only.
    pub fn send(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.0.send(change);
    }
}

/// Feeds the bus from the database's notifications until the task is dropped; after a lost connection everybody is told to
/// look at everything.
pub async fn run(ctx: Ctx) {
    loop {
        if let Err(error) = feed(&ctx).await {
            tracing::warn!(error = %chain(&error), "listening for notifications of the database; trying again");
        }
        ctx.bus().send(Change::EVERYTHING);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn feed(ctx: &Ctx) -> Result<(), store::StoreError> {
    let mut listener = store::notify::Listener::start(ctx.store()).await?;
    metrics::counter!(HINTS_LOST.name).increment(1);
    ctx.bus().send(Change::EVERYTHING);
    loop {
        let change = match listener.next().await? {
            None => {
                metrics::counter!(HINTS_LOST.name).increment(1);
                Change::EVERYTHING
            }
            Some((tenant_id, name)) => match Topic::from_name(&name) {
                Some(topic) => Change { tenant_id: Some(tenant_id), topic },
                None => continue,
            },
        };
        metrics::counter!(HINTS.name).increment(1);
        ctx.bus().send(change);
    }
}
