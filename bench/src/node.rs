//! The released server with a private PostgreSQL of its own, in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

pub(crate) const SERVER: &str = "target/release/ringfence";

/// Where one server keeps its data and listens.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) pages: u16,
    agents: u16,
    /// Where agents reach it.
    host: &'static str,
}

impl Node {
    /// On free ports; agents reach it as `host`.
    pub(crate) async fn new(name: &str, host: &'static str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("ringfence-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, pages: free_port().await?, agents: free_port().await?, host })
    }

    pub(crate) fn is_built() -> bool {
        Path::new(SERVER).exists()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(SERVER);
        let Self { pages, agents, host, .. } = self;
        let all = if *host == "localhost" { "127.0.0.1" } else { "0.0.0.0" };
        command
            .env("LEPTOS_SITE_ROOT", "target/site")
            .env("RUST_LOG", "error")
            .env("RINGFENCE__HTTP__LISTEN", format!("127.0.0.1:{pages}"))
            .env("RINGFENCE__HTTP__PUBLIC_URL", format!("http://localhost:{pages}"))
            .env("RINGFENCE__AGENTS__LISTEN", format!("{all}:{agents}"))
            .env("RINGFENCE__AGENTS__PUBLIC_HOST", host)
            .env("RINGFENCE__AGENTS__PUBLIC_PORT", agents.to_string())
            .env("RINGFENCE__DATABASE__DATA_DIR", self.folder.join("data"))
            .env("RINGFENCE__DEVELOPMENT__MAILBOX", "true")
            .kill_on_drop(true);
        command
    }

    /// Starts it, and waits until it takes agents and its database answers.
    pub(crate) async fn serve(&self) -> anyhow::Result<Child> {
        let log = std::fs::File::create(self.folder.join("server.log"))?;
        let server = self.command().arg("serve").stdout(Stdio::null()).stderr(log).spawn()?;
        let until = Instant::now() + Duration::from_mins(1);
        // The port is taken before the database is up.
        while TcpStream::connect(("127.0.0.1", self.agents)).await.is_err() || self.sql("SELECT 1").await.is_err() {
            ensure!(Instant::now() < until, "the server does not answer; see {}", self.folder.display());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// The folder in which its database listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("data/postgres/socket")
    }

    pub(crate) async fn sql(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        let output = Command::new("psql")
            .args(["-qXAt", "-v", "ON_ERROR_STOP=1", "-U", "ringfence_admin", "-d", "ringfence", "-c", sql, "-h"])
            .arg(self.socket())
            .output()
            .await?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.lines().map(ToOwned::to_owned).collect())
    }
}

impl Drop for Node {
    /// Ends a database whose server was killed, and forgets it.
    #[expect(clippy::disallowed_methods, reason = "a benchmark starts what it measures")]
    fn drop(&mut self) {
        let lock = std::fs::read_to_string(self.folder.join("data/postgres/data/postmaster.pid"));
        if let Some(id) = lock.ok().and_then(|text| text.lines().next()?.parse::<u32>().ok()) {
            let _ = std::process::Command::new("kill").args(["-INT", &id.to_string()]).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Asks a process to stop, and waits until it has.
pub(crate) async fn stop(child: &mut Child) -> anyhow::Result<()> {
    if let Some(id) = child.id() {
        Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        child.wait().await?;
    }
    Ok(())
}

/// What a process holds in memory.
pub(crate) fn rss_mib(child: &Child) -> anyhow::Result<f64> {
    let id = child.id().context("the process has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).context("no VmRSS")
}

async fn free_port() -> anyhow::Result<u16> {
    Ok(tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}
