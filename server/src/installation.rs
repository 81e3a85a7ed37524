//! Opens the installation that the settings describe: database, schema, master key, keys kept in the database.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use actions::clock::SystemClock;
use actions::seal::MasterKey;
use actions::{Ctx, Settings};
use anyhow::{Context as _, bail};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use store::Store;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::private_postgres::PrivatePostgres;
use crate::wakeups::{self, Carrier};

const KEY_BYTES: usize = 32;

/// An open installation.
#[derive(Debug)]
pub struct Installation {
    /// What actions work with.
    pub ctx: Ctx,
    postgres: Option<PrivatePostgres>,
}

impl Installation {
    /// Opens it; on the first start makes what is missing. With it comes what carries hints to and from other nodes, for
    /// [`crate::wakeups::run`]; without that they find its changes by looking.
    ///
    /// # Errors
    /// What could not be opened, and why.
    pub async fn open(config: &Config) -> anyhow::Result<(Self, Carrier)> {
        let postgres = match config.database.url {
            Some(_) => None,
            None => Some(PrivatePostgres::start(&config.database.data_dir).await?),
        };
        match open_with(config, postgres.as_ref()).await {
            Ok((ctx, carrier)) => Ok((Self { ctx, postgres }, carrier)),
            Err(error) => {
                if let Some(postgres) = postgres {
                    postgres.stop().await?;
                }
                Err(error)
            }
        }
    }

    /// Keeps a private PostgreSQL running. Never ends.
    pub async fn keep_up(&self) {
        match &self.postgres {
            Some(postgres) => postgres.keep_up().await,
            None => std::future::pending().await,
        }
    }

    /// Closes it: a private PostgreSQL that this process started is stopped.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn close(self) -> anyhow::Result<()> {
        match self.postgres {
            Some(postgres) => postgres.stop().await,
            None => Ok(()),
        }
    }
}

async fn open_with(config: &Config, postgres: Option<&PrivatePostgres>) -> anyhow::Result<(Ctx, Carrier)> {
    let configured = |url: &Option<crate::config::Masked>| url.as_ref().map(|url| url.expose().to_owned());
    let (app, system, owner) = match postgres {
        Some(postgres) => {
            (postgres.url("ringfence_app"), postgres.url("ringfence_system"), Some(postgres.url("ringfence_owner")))
        }
        None => (
            configured(&config.database.url).context("database.url")?,
            configured(&config.database.system_url).context("database.system_url")?,
            configured(&config.database.owner_url),
        ),
    };
    if let Some(owner) = owner {
        store::migrate(&owner).await.context("bringing the schema of the database up to date")?;
    }
    let store =
        Store::connect(&app, &system, config.database.max_connections).await.context("connecting to the database")?;
    let master_key = master_key(config)?;
    let settings = Settings {
        public_url: config.http.public_url.as_str().trim_end_matches('/').to_owned(),
        agent_address: agent_address(&config.agents.public_host, config.agents.public_port),
        development_mailbox: config.development.mailbox,
    };
    let (bus, carrier) = wakeups::configured(&config.wakeups)?;
    let ctx = Ctx::start_on(bus, store, settings, master_key, Arc::new(SystemClock)).await;
    Ok((ctx.context("opening the installation's keys")?, carrier))
}

/// `host:port`, with brackets around an IPv6 address.
fn agent_address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn master_key(config: &Config) -> anyhow::Result<MasterKey> {
    let text = if let Some(key) = &config.secrets.master_key {
        Zeroizing::new(key.expose().to_owned())
    } else {
        let path = config.master_key_path();
        if config.is_private() && !path.exists() {
            make_master_key(&path).with_context(|| format!("making the master key {}", path.display()))?;
        }
        Zeroizing::new(fs::read_to_string(&path).with_context(|| format!("reading the master key {}", path.display()))?)
    };
    let Some(bytes) = decode(text.trim()) else {
        bail!("the master key must be {KEY_BYTES} bytes in hexadecimal (openssl rand -hex 32) or base64");
    };
    MasterKey::new(&bytes).map_err(anyhow::Error::msg)
}

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.as_bytes();
    [HEXLOWER_PERMISSIVE.decode(text), BASE64.decode(text), BASE64_NOPAD.decode(text)]
        .into_iter()
        .flatten()
        .find(|bytes| bytes.len() == KEY_BYTES)
        .map(Zeroizing::new)
}

/// Written under another name first, so that a start that is cut off leaves no half key behind.
fn make_master_key(path: &Path) -> anyhow::Result<()> {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    rand::Rng::fill_bytes(&mut rand::rng(), key.as_mut());
    let half = path.with_extension("new");
    let _ = fs::remove_file(&half);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&half)?;
    file.write_all(HEXLOWER.encode(key.as_ref()).as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::set_permissions(&half, Permissions::from_mode(0o600))?;
    // Of two first starts at once, the second uses the first one's key.
    let linked = fs::hard_link(&half, path);
    fs::remove_file(&half)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_can_be_read_again_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        make_master_key(&path).unwrap();
        let first = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(decode(first.trim()).is_some());
        make_master_key(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), first, "a key is never replaced");
    }

    #[test]
    fn keys_come_in_hexadecimal_or_base64() {
        assert!(decode(&"Ab".repeat(32)).is_some());
        assert!(decode("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").is_some());
        assert!(decode("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").is_some());
        assert!(decode("short").is_none());
    }

    #[test]
    fn an_ipv6_address_gets_its_brackets() {
        assert_eq!(agent_address("::1", 3443), "[::1]:3443");
        assert_eq!(agent_address("[::1]", 3443), "[::1]:3443");
        assert_eq!(agent_address("ringfence.example", 3443), "ringfence.example:3443");
    }
}
