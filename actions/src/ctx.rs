//! What every action works with: the database, the clock, keys, settings. Made once at start.

use std::sync::Arc;

use policy::ids::TenantId;
use store::Store;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::bus::Bus;
use crate::ca::CertificateAuthority;
use crate::clock::Clock;
use crate::enrolment_token::TokenKey;
use crate::error::ActError;
use crate::login_guard::Turned;
use crate::passwords::Passwords;
use crate::seal::MasterKey;

/// What an installation is configured to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the portal as people type it, without a slash at the end.
    pub public_url: String,
    /// `host:port` that agents dial.
    pub agent_address: String,
    /// Mails are kept and shown at `/dev/mailbox`; development only.
    pub development_mailbox: bool,
}

/// The tenant of the installation itself: sign-ups, and logins to accounts that don't exist, are audited there.
pub const INSTALLATION: TenantId = TenantId(Uuid::nil());

/// A database that doesn't answer by then isn't there.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    settings: Settings,
    master_key: MasterKey,
    passwords: Passwords,
    turned: Turned,
    bus: Bus,
    ca: CertificateAuthority,
    token_key: TokenKey,
    node: Uuid,
}

/// What every action works with.
#[derive(Debug, Clone)]
pub struct Ctx(Arc<Inner>);

impl Ctx {
    /// Opens the installation's keys, or makes them on the first start. Other nodes find its changes by looking.
    pub async fn start(
        store: Store,
        settings: Settings,
        master_key: MasterKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ActError> {
        Self::start_on(Bus::new().0, store, settings, master_key, clock).await
    }

    /// The same, with a bus that the caller carries hints from and to.
    pub async fn start_on(
        bus: Bus,
        store: Store,
        settings: Settings,
        master_key: MasterKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ActError> {
        let now = clock.now();
        let ca = CertificateAuthority::load(&store, &master_key, now).await?;
        let token_key = TokenKey::load(&store, &master_key, now).await?;
        let passwords = Passwords::new(2);
        // Each start is another node: the streams of the one before are gone.
        let node = Uuid::new_v4();
        store::nodes::beat(&store, node, now).await?;
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            settings,
            master_key,
            passwords,
            turned: Turned::default(),
            bus,
            ca,
            token_key,
            node,
        })))
    }

    /// This node.
    pub fn node(&self) -> Uuid {
        self.0.node
    }

    /// Whether this node can serve: in a word what it lacks, if it lacks something.
    ///
    /// # Errors
    /// The first thing that fails: `database`, `schema` or `keys`.
    pub async fn ready(&self) -> Result<(), &'static str> {
        let migrated = tokio::time::timeout(READY_WITHIN, self.store().is_migrated()).await;
        match migrated {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err("schema"),
            Ok(Err(_)) | Err(_) => return Err("database"),
        }
        let opened = tokio::time::timeout(READY_WITHIN, TokenKey::opens(self.store(), self.master_key())).await;
        if matches!(opened, Ok(Ok(true))) { Ok(()) } else { Err("keys") }
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// This instant.
    pub fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    /// The configuration.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Hints that something changed.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// The CA of the agents.
    pub fn ca(&self) -> &CertificateAuthority {
        &self.0.ca
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(crate) fn turned(&self) -> &Turned {
        &self.0.turned
    }

    pub(crate) fn master_key(&self) -> &MasterKey {
        &self.0.master_key
    }

    pub(crate) fn token_key(&self) -> &TokenKey {
        &self.0.token_key
    }
}

/// The secret of a name, or `make`'s the first time; of two nodes that start at once, both get the same.
pub(crate) async fn secret(
    store: &Store,
    key: &MasterKey,
    name: &str,
    now: OffsetDateTime,
    make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, ActError>,
) -> Result<Zeroizing<Vec<u8>>, ActError> {
    let mut tx = store.platform().await?;
    let mut kept = store::secrets::get(&mut tx, name).await?;
    if kept.is_none() {
        let sealed = key.seal(name, &make()?)?;
        store::secrets::put_new(
            &mut tx,
            name,
            &store::secrets::SealedSecret { key_id: key.id().to_owned(), sealed },
            now,
        )
        .await?;
        kept = store::secrets::get(&mut tx, name).await?;
    }
    tx.commit().await?;
    let kept = kept.ok_or_else(|| ActError::internal(format!("the secret {name} was kept but isn't there")))?;
    key.open(name, &kept.key_id, &kept.sealed)
}
