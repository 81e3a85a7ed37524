//! A PostgreSQL of our own for installations that configure none: made from the installed binaries, reached through a unix
//! socket only, run as an unprivileged user when we are root. The only place of the server that starts processes.
//!
//! Whoever holds the lock beside the data stops it at the end. After a `kill -9` PostgreSQL goes on or leaves its pid
//! file: the next start finds the running one and takes it over, or PostgreSQL itself clears the stale file.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const ADMINISTRATOR: &str = "ringfence_admin";
const DATABASE: &str = "ringfence";
const ROLES: &str = include_str!("../../migrations/roles.sql");
/// How often is looked whether it is still there.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
/// `sun_path` of Linux, without the socket's own name.
const SOCKET_FOLDER_MAX_BYTES: usize = 107 - ".s.PGSQL.5432".len() - 1;

/// A running private PostgreSQL.
#[derive(Debug)]
pub struct PrivatePostgres {
    folder: PathBuf,
    binaries: PathBuf,
    account: Option<Account>,
    /// Held by the process that stops it; `None` when another one does.
    lock: Option<File>,
}

/// The unprivileged user that it runs as when we are root.
#[derive(Debug, Clone)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl PrivatePostgres {
    /// Starts it below `data_dir`, making what is missing, or takes over one that runs there already.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let folder = data_dir.join("postgres");
        let account = if running_as_root()? { Some(find_account()?) } else { None };
        let lock = try_lock(&data_dir.join("postgres.lock"))?;
        let postgres = Self { binaries: find_binaries(&folder.join("data"))?, folder, account, lock };
        if postgres.lock.is_none() {
            postgres.wait_until_up().await?;
            return Ok(postgres);
        }
        postgres.make_folders()?;
        if !postgres.data().join("PG_VERSION").exists() {
            tracing::info!(path = %postgres.folder.display(), "Making a private PostgreSQL");
            postgres.make_cluster().await?;
        }
        if postgres.is_up().await {
            tracing::info!("Found the private PostgreSQL running");
        } else {
            postgres.run_server().await?;
        }
        postgres.make_roles_and_database().await?;
        Ok(postgres)
    }

    /// The database as `role` reaches it.
    pub fn url(&self, role: &str) -> String {
        let socket: String =
            url::form_urlencoded::byte_serialize(self.socket().as_os_str().as_encoded_bytes()).collect();
        format!("postgres://{role}@localhost/{DATABASE}?host={socket}")
    }

    /// Starts it again whenever it has died, unless another process looks after it. Never ends.
    pub async fn keep_up(&self) {
        let mut every = tokio::time::interval(WATCHED_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if self.lock.is_none() || self.is_alive() {
                continue;
            }
            tracing::error!("The private PostgreSQL has died; starting it again");
            // What the dead one left may hold it up for a moment.
            if let Err(error) = self.run_server().await {
                tracing::error!(error = format!("{error:#}"), "The private PostgreSQL does not start; trying again");
            }
        }
    }

    /// Whether the process that its pid file names is there.
    fn is_alive(&self) -> bool {
        let pid = fs::read_to_string(self.data().join("postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
        // Its number may be another process's by now, and one that nobody has waited for is dead, too.
        pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok()).is_some_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(name, state)| name.ends_with("(postgres") && !state.starts_with(['Z', 'X']))
        })
    }

    /// Stops it, unless another process looks after it.
    ///
    /// # Errors
    /// When it does not stop within half a minute.
    pub async fn stop(self) -> anyhow::Result<()> {
        if self.lock.is_some() {
            self.succeed(self.pg_ctl(&["-m", "fast", "-w", "-t", "30", "stop"]), "stopping the private PostgreSQL")
                .await?;
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn make_folders(&self) -> anyhow::Result<()> {
        let socket = self.socket();
        ensure!(
            socket.as_os_str().len() <= SOCKET_FOLDER_MAX_BYTES,
            "{} is too long for a unix socket ({SOCKET_FOLDER_MAX_BYTES} bytes): choose a shorter database.data_dir",
            socket.display()
        );
        ensure!(
            !socket.to_string_lossy().contains(['\'', '"', '\\', ',']),
            "{}: database.data_dir must not hold quotes, commas or backslashes",
            socket.display()
        );
        for folder in [&self.folder, &socket] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            if let Some(Account { uid, gid, .. }) = self.account {
                chown(folder, Some(uid), Some(gid)).with_context(|| format!("giving {} away", folder.display()))?;
            }
            // Who gets through here is let in as any role.
            fs::set_permissions(folder, Permissions::from_mode(0o700))
                .context("closing the folder of the private PostgreSQL")?;
        }
        if let Some(account) = &self.account {
            for above in self.folder.ancestors().skip(1) {
                let open = fs::metadata(above).is_ok_and(|meta| meta.mode() & 0o001 != 0 || meta.uid() == account.uid);
                ensure!(
                    open,
                    "PostgreSQL refuses root and runs as “{}”, who can't pass through {}: choose another database.data_dir, \
                     such as /var/lib/ringfence, or chmod o+x that folder",
                    account.name,
                    above.display()
                );
            }
        }
        Ok(())
    }

    async fn make_cluster(&self) -> anyhow::Result<()> {
        let mut command = self.command("initdb");
        command.arg("-D").arg(self.data()).args([
            "-U",
            ADMINISTRATOR,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]);
        self.succeed(command, "making the private PostgreSQL").await.map(drop)
    }

    async fn run_server(&self) -> anyhow::Result<()> {
        let log = self.folder.join("log");
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c unix_socket_permissions=0700",
            self.socket().display()
        );
        let mut command = self.pg_ctl(&["-w", "-t", "60", "-o", &options]);
        command.arg("-l").arg(&log).arg("start");
        self.succeed(command, "starting the private PostgreSQL").await.with_context(|| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(8).collect();
            format!("its log ends with:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })?;
        Ok(())
    }

    async fn make_roles_and_database(&self) -> anyhow::Result<()> {
        self.psql("postgres", ROLES).await?;
        let known = self.psql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")).await?;
        if known.trim().is_empty() {
            self.psql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER ringfence_owner")).await?;
        }
        Ok(())
    }

    async fn psql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut command = self.command("psql");
        command.arg("-h").arg(self.socket()).args([
            "-U",
            ADMINISTRATOR,
            "-d",
            database,
            "-v",
            "ON_ERROR_STOP=1",
            "-qAtX",
            "-f",
            "-",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("running psql")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(sql.as_bytes()).await.context("talking to psql")?;
        }
        let output = child.wait_with_output().await.context("running psql")?;
        refuse_failure(&output, "preparing the private PostgreSQL")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn is_up(&self) -> bool {
        let mut command = self.command("pg_isready");
        command.arg("-q").arg("-h").arg(self.socket()).args(["-U", ADMINISTRATOR, "-d", "postgres"]);
        command.status().await.is_ok_and(|status| status.success())
    }

    /// Another process of ours starts it right now, or runs it.
    async fn wait_until_up(&self) -> anyhow::Result<()> {
        for _ in 0..300 {
            if self.is_up().await
                && !self
                    .psql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"))
                    .await?
                    .is_empty()
            {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        bail!("another process holds {} and its PostgreSQL does not answer", self.folder.display())
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).args(arguments);
        command
    }

    /// A command of PostgreSQL as the unprivileged user, with nothing of our environment but what it needs.
    fn command(&self, name: &str) -> Command {
        let program = self.binaries.join(name);
        let mut command = match &self.account {
            Some(Account { uid, gid, .. }) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={uid}"),
                    format!("--regid={gid}"),
                    "--clear-groups".to_owned(),
                    "--".to_owned(),
                ]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        // Readable whoever runs it: our own folder may be closed to the unprivileged user.
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    async fn succeed(&self, mut command: Command, what: &str) -> anyhow::Result<Output> {
        let output = command.output().await.with_context(|| what.to_owned())?;
        refuse_failure(&output, what)?;
        Ok(output)
    }
}

fn refuse_failure(output: &Output, what: &str) -> anyhow::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    bail!("{what}: {}\n{}", output.status, said.join("\n").trim())
}

fn running_as_root() -> anyhow::Result<bool> {
    Ok(fs::metadata("/proc/self").context("reading /proc/self")?.uid() == 0)
}

fn try_lock(path: &Path) -> anyhow::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

fn find_account() -> anyhow::Result<Account> {
    let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            (name == wanted).then_some(())?;
            Some(Account { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        })
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .context("PostgreSQL refuses root, and there is no user “postgres” or “nobody” to run it")
}

/// The folder of `initdb` and `pg_ctl`: of the version that made the data, or the newest.
fn find_binaries(data: &Path) -> anyhow::Result<PathBuf> {
    let made_by = fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").exists())
        .collect();
    found.sort();
    match made_by {
        Some(version) => found.into_iter().find(|(found, _)| *found == version).map(|(_, folder)| folder).with_context(|| {
            format!("the data in {} was made by PostgreSQL {version}, which is not installed any more", data.display())
        }),
        None => found.pop().map(|(_, folder)| folder).context(
            "no PostgreSQL is configured (database.url), and none is installed to start a private one: apt-get install postgresql",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that the unprivileged user can pass through to.
    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::Builder::new()
            .prefix("rf")
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        folder
    }

    #[tokio::test]
    async fn starts_is_shared_taken_over_and_stopped() {
        let folder = open_folder();
        let first = PrivatePostgres::start(folder.path()).await.unwrap();
        store::migrate(&first.url("ringfence_owner")).await.unwrap();
        let connect = async |postgres: &PrivatePostgres| {
            store::Store::connect(&postgres.url("ringfence_app"), &postgres.url("ringfence_system"), 2).await
        };
        connect(&first).await.unwrap();

        let second = PrivatePostgres::start(folder.path()).await.unwrap();
        assert!(second.lock.is_none(), "one process looks after it");
        second.stop().await.unwrap();
        connect(&first).await.expect("the second one left it running");

        // As after a kill -9 of the first: its lock is gone, its PostgreSQL goes on.
        drop(first);
        let third = PrivatePostgres::start(folder.path()).await.unwrap();
        connect(&third).await.unwrap();
        let (app, system) = (third.url("ringfence_app"), third.url("ringfence_system"));
        third.stop().await.unwrap();
        assert!(store::Store::connect(&app, &system, 2).await.is_err(), "it has stopped");
    }

    #[tokio::test]
    async fn a_stale_pid_file_does_not_hinder_it() {
        let folder = open_folder();
        let postgres = PrivatePostgres::start(folder.path()).await.unwrap();
        let pid_file = postgres.data().join("postmaster.pid");
        let kept = fs::read_to_string(&pid_file).unwrap();
        // Of a process that is surely gone.
        let stale = format!("4194303\n{}", kept.split_once('\n').unwrap().1);
        postgres.stop().await.unwrap();
        fs::write(&pid_file, stale).unwrap();
        if let Some(Account { uid, gid, .. }) = running_as_root().unwrap().then(|| find_account().unwrap()) {
            chown(&pid_file, Some(uid), Some(gid)).unwrap();
        }
        PrivatePostgres::start(folder.path()).await.unwrap().stop().await.unwrap();
    }

    #[tokio::test]
    async fn says_why_a_folder_will_not_do() {
        let folder = open_folder();
        let error = PrivatePostgres::start(&folder.path().join("long".repeat(40))).await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        if running_as_root().unwrap() {
            let closed = folder.path().join("closed");
            fs::create_dir(&closed).unwrap();
            fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
            let error = PrivatePostgres::start(&closed).await.unwrap_err();
            assert!(error.to_string().contains("chmod o+x"), "{error}");
        }
    }
}
