//! What the agent keeps on disk, in one directory that only it may read. Files are replaced atomically; a damaged one is set aside
//! and said so, so that it never keeps the agent from starting.

mod journal;
mod spool;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use policy::snapshot::PolicySnapshot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::error;

pub use journal::{Journal, Record};
pub use spool::Spool;

/// The last good policy.
pub const POLICY_FILE: &str = "policy.json";

/// Who this agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The server's `host:port`.
    pub server: String,
    /// The name of the PBX in the portal.
    pub pbx_name: String,
}

/// The certificate and key of this agent, and the CA of the server.
#[derive(Clone)]
pub struct Credentials {
    /// Private key, PEM.
    pub key_pem: String,
    /// Client certificate, PEM.
    pub certificate_pem: String,
    /// The only CA to trust, PEM.
    pub ca_pem: String,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    /// JSON files that the disk did not take, by name.
    behind: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl StateDir {
    /// Opens the directory, making it when it isn't there; only the owner may enter.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("making the state directory {}", path.display()))?;
        Ok(Self { path: path.to_owned(), behind: Arc::default() })
    }

    /// Where a file of the state is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps other agents out of this directory until the returned file is dropped.
    pub fn lock(&self) -> anyhow::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.file("lock"))
            .context("opening the lock file")?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another ringfence-agent is running on {}", self.path.display()))?;
        Ok(file)
    }

    /// Replaces a file; afterwards the old or the new content is there, whatever happens to the machine.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.put(name, content, true)
    }

    /// Replaces a file whose loss in a power cut does no harm.
    pub fn write_unsynced(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.put(name, content, false)
    }

    fn put(&self, name: &str, content: &[u8], sync: bool) -> io::Result<()> {
        let target = self.file(name);
        let part = self.file(&format!("{name}.part"));
        let written =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part).and_then(|mut file| {
                file.write_all(content)?;
                if sync { file.sync_all() } else { Ok(()) }
            });
        if let Err(error) = written.and_then(|()| fs::rename(&part, &target)) {
            // On a full disk half a file is room that something else needs.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        if sync && let Some(folder) = target.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Reads a file; `None` when there is none, or when it is damaged and has been set aside.
    pub fn read(&self, name: &str) -> Option<String> {
        match fs::read(self.file(name)) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|error| self.set_aside(name, &error.to_string())).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.set_aside(name, &error.to_string());
                None
            }
        }
    }

    /// Reads a JSON file; see [`Self::read`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(&self.read(name)?).map_err(|error| self.set_aside(name, &error.to_string())).ok()
    }

    /// Replaces a JSON file. What the disk doesn't take comes with [`Self::catch_up`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let content = serde_json::to_vec_pretty(value)?;
        let written = self.write(name, &content);
        let mut behind = self.behind();
        behind.remove(name);
        if written.is_err() {
            behind.insert(name.to_owned(), content);
        }
        written
    }

    /// Writes what the disk did not take when it was to.
    pub fn catch_up(&self) {
        self.behind().retain(|name, content| self.write(name, content).is_err());
    }

    fn behind(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a file; that there is none is fine.
    pub fn remove(&self, name: &str) {
        self.behind().remove(name);
        if let Err(error) = remove(&self.file(name)) {
            error!(file = name, %error, "A file of the agent's state could not be removed");
        }
    }

    /// Takes a damaged file out of the way.
    pub fn set_aside(&self, name: &str, why: &str) {
        let aside = self.file(&format!("{name}.damaged"));
        let kept = fs::rename(self.file(name), &aside).is_ok();
        error!(
            file = name,
            why,
            kept,
            "A file of the agent's state is damaged; going on without it. It was set aside as {}",
            aside.display()
        );
    }

    /// Who this agent is; `None` before enrolment.
    pub fn identity(&self) -> Option<Identity> {
        self.read_json("identity.json")
    }

    /// Key and certificates; `None` before enrolment.
    pub fn credentials(&self) -> Option<Credentials> {
        Some(Credentials {
            key_pem: self.read("key.pem")?,
            certificate_pem: self.read("cert.pem")?,
            ca_pem: self.read("ca.pem")?,
        })
    }

    /// Keeps a new identity, and forgets what belonged to the one before: it may have been another tenant's.
    pub fn enrolled(&self, identity: &Identity, credentials: &Credentials) -> io::Result<()> {
        for name in [POLICY_FILE, "names.json", "bans.log", "status.json", "trial.json", "withheld.json"] {
            remove(&self.file(name))?;
        }
        match fs::remove_dir_all(self.file("spool")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.write("key.pem", credentials.key_pem.as_bytes())?;
        self.renewed(credentials)?;
        self.write("ca.pem", credentials.ca_pem.as_bytes())?;
        self.write_json("identity.json", identity)
    }

    /// Keeps a new certificate for the key that there is.
    pub fn renewed(&self, credentials: &Credentials) -> io::Result<()> {
        self.write("cert.pem", credentials.certificate_pem.as_bytes())
    }

    /// The last good policy.
    pub fn policy(&self) -> Option<PolicySnapshot> {
        self.read_json(POLICY_FILE)
    }

    /// Keeps the last good policy.
    pub fn keep_policy(&self, policy: &PolicySnapshot) -> io::Result<()> {
        self.write_json(POLICY_FILE, policy)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        state.write("policy.json", b"{\"revision\": 3, \"allo").unwrap();
        assert_eq!(state.policy(), None);
        assert!(state.file("policy.json.damaged").exists());
        assert_eq!(state.policy(), None);
        state.keep_policy(&PolicySnapshot { revision: 4, ..PolicySnapshot::default() }).unwrap();
        assert_eq!(state.policy().unwrap().revision, 4);
        assert_eq!(fs::metadata(folder.path().join("state")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_the_disk_did_not_take_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let policy = |revision| PolicySnapshot { revision, ..PolicySnapshot::default() };
        // No file can be made where a folder is in the way.
        let obstacle = folder.path().join("policy.json.part");
        fs::create_dir(&obstacle).unwrap();
        state.keep_policy(&policy(3)).unwrap_err();
        state.keep_policy(&policy(4)).unwrap_err();
        state.catch_up();
        assert_eq!(state.policy(), None);
        fs::remove_dir(&obstacle).unwrap();
        state.catch_up();
        assert_eq!(state.policy(), Some(policy(4)));
        state.keep_policy(&policy(5)).unwrap();
        state.catch_up();
        assert_eq!(state.policy(), Some(policy(5)));
    }

    #[test]
    fn a_second_agent_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let lock = state.lock().unwrap();
        assert!(state.lock().is_err());
        drop(lock);
        assert!(state.lock().is_ok());
    }
}
