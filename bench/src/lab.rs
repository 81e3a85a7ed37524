//! A real Asterisk and an attacker in network namespaces (`testbed/lab`), the released agent beside that Asterisk, and the released server
//! on the host. What is measured with them is in the modules below.

mod apply;
mod attempts;
mod click;
mod portal;
mod probe;
mod reaction;
mod sip;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use self::portal::Portal;
use crate::node::{self, Node};
use crate::report::{Report, say};

const SCRIPT: &str = "testbed/lab";
const AGENT: &str = "target/release/ringfence-agent";
/// The host as every lab sees it.
const HOST: &str = "10.99.255.1";
const PBX: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Of the ports that fail2ban closes to an attacker the one at which Asterisk does not listen.
const ECHO_PORT: u16 = 5061;
/// The attacker's own address, and a network of attackers behind it.
const GATEWAY: &str = "203.0.113.10";
const SOURCES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Measures all that needs it, or says why not.
pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    // What the parts before have written goes to the disk first: it would be waited for by whatever is measured here.
    rustix::fs::sync();
    say(
        "A real Asterisk, the released agent with nftables beside it, the released server; attackers in a network namespace",
    );
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        say("  left out: network namespaces need root\n");
        return Ok(());
    }
    if !Node::is_built() || !Path::new(AGENT).exists() {
        say("  left out: server or agent is not built; scripts/build.sh builds them\n");
        return Ok(());
    }
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    say(&format!("  {} cores, load before it begins: {load}", std::thread::available_parallelism()?));
    let mut lab = Lab::up().await?;
    lab.start_agent().await?;
    reaction::ours(&lab, report).await?;
    attempts::measure(&lab, report).await?;
    click::measure(&mut lab, report).await?;
    apply::measure(&mut lab, report).await?;
    lab.stop_agent().await?;
    reaction::others(&lab, report).await?;
    say("");
    lab.down().await
}

/// The lab, up and running.
struct Lab {
    name: String,
    node: Node,
    server: Child,
    agent: Option<Child>,
    agent_folder: PathBuf,
    portal: Portal,
    next_source: AtomicU32,
}

impl Lab {
    async fn up() -> anyhow::Result<Self> {
        let name = format!("b{}", std::process::id() % 10_000_000);
        say("  (the first time on a machine Asterisk's root file system is made, which takes minutes)");
        run(SCRIPT, &["up", &name]).await?;
        let made = Self::furnish(&name).await;
        if made.is_err() {
            run(SCRIPT, &["down", &name]).await?;
        }
        made
    }

    async fn furnish(name: &str) -> anyhow::Result<Self> {
        let (pbx, attacker) = (namespace(name, "pbx"), namespace(name, "attacker"));
        let sources = format!("{SOURCES}/15");
        run("ip", &["-n", &pbx, "route", "add", &sources, "via", GATEWAY]).await?;
        run("ip", &["-n", &attacker, "route", "add", "local", &sources, "dev", "lo"]).await?;
        let echo = within(&pbx, || UdpSocket::bind((PBX, ECHO_PORT)))?;
        // Ends with this process.
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                // A refusal of an answer is told at the next call.
                if let Ok((length, from)) = echo.recv_from(&mut buffer) {
                    let _ = echo.send_to(&buffer[..length], from);
                }
            }
        });
        let node = Node::new("bench-lab", HOST).await?;
        let seeded = node.command().args(["demo-seed", "--json"]).output().await?;
        ensure!(seeded.status.success(), "demo-seed: {}", String::from_utf8_lossy(&seeded.stderr));
        let login = portal::Login::read(&seeded.stdout)?;
        let server = node.serve().await?;
        let portal = Portal::log_in(node.pages, &login).await?;
        let agent_folder = node.folder.join("agent");
        let token = login.enrolment_token.context("the demo PBX has an agent")?;
        let folder = agent_folder.display().to_string();
        run(SCRIPT, &["exec", name, "pbx", AGENT, "enrol", "--token", &token, "--state-dir", &folder]).await?;
        Ok(Self {
            name: name.to_owned(),
            node,
            server,
            agent: None,
            agent_folder,
            portal,
            next_source: AtomicU32::new(0),
        })
    }

    async fn down(mut self) -> anyhow::Result<()> {
        self.stop_agent().await?;
        node::stop(&mut self.server).await
    }

    /// Starts the agent, and waits until all is well with it.
    async fn start_agent(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.node.folder.join("agent.log"))?;
        let agent = Command::new(SCRIPT)
            .args([
                "exec",
                &self.name,
                "pbx",
                AGENT,
                "run",
                "--pbx",
                "asterisk",
                "--firewall",
                "nftables",
                "--state-dir",
            ])
            .arg(&self.agent_folder)
            .env("RUST_LOG", "info")
            .env("RINGFENCE_AGENT_AMI_USER", "agent")
            .env("RINGFENCE_AGENT_AMI_SECRET", "amisecret")
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.agent = Some(agent);
        let until = Instant::now() + Duration::from_secs(30);
        let folder = self.agent_folder.display().to_string();
        // It says so itself once the server, the firewall and Asterisk are there.
        while run(SCRIPT, &["exec", &self.name, "pbx", AGENT, "status", "--state-dir", &folder]).await.is_err() {
            ensure!(Instant::now() < until, "the agent does not come up:\n{}", self.agent_log());
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn stop_agent(&mut self) -> anyhow::Result<()> {
        match self.agent.take() {
            Some(mut agent) => node::stop(&mut agent).await,
            None => Ok(()),
        }
    }

    fn agent(&self) -> anyhow::Result<&Child> {
        self.agent.as_ref().context("no agent runs")
    }

    fn agent_log(&self) -> String {
        let log = std::fs::read_to_string(self.node.folder.join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// A connection to the server's database.
    async fn database(&self) -> anyhow::Result<PgConnection> {
        let options =
            PgConnectOptions::new().socket(self.node.socket()).username("ringfence_admin").database("ringfence");
        Ok(options.connect().await?)
    }

    /// An address that nobody has attacked from.
    fn source(&self) -> Ipv4Addr {
        let next = self.next_source.fetch_add(1, Ordering::Relaxed);
        Ipv4Addr::from_bits(SOURCES.to_bits() + 1 + next)
    }

    /// A socket of an attacker, to a port of the PBX.
    fn socket(&self, source: Ipv4Addr, port: u16) -> anyhow::Result<UdpSocket> {
        let socket = within(&namespace(&self.name, "attacker"), || UdpSocket::bind((source, 0)))?;
        socket.connect((PBX, port))?;
        Ok(socket)
    }

    /// Runs `nft` beside Asterisk.
    async fn nft(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(SCRIPT, &[&["exec", &self.name, "pbx", "nft"][..], arguments].concat()).await
    }
}

impl Drop for Lab {
    /// Ends what is left in the namespaces, whatever happened.
    #[expect(clippy::disallowed_methods, reason = "a benchmark starts what it measures")]
    fn drop(&mut self) {
        let _ = std::process::Command::new(SCRIPT).args(["down", &self.name]).stdout(Stdio::null()).status();
    }
}

fn namespace(lab: &str, which: &str) -> String {
    format!("rf-{lab}-{which}")
}

/// Runs in a network namespace, in a thread of its own; sockets made there stay there.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{namespace}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread in the namespace panicked")))
    })
}

/// What a command prints.
async fn run(command: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(command).args(arguments).output().await.with_context(|| format!("running {command}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command} {}: {}", arguments.join(" "), words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How often what takes a while is measured: `RINGFENCE_BENCH_RUNS` attacks against the agent, or 60, and of other things in proportion.
#[expect(clippy::disallowed_methods, reason = "how long a benchmark takes depends on who waits")]
fn runs(of_60: usize) -> anyhow::Result<usize> {
    let wanted = match std::env::var("RINGFENCE_BENCH_RUNS") {
        Ok(text) => text.parse().context("RINGFENCE_BENCH_RUNS is a number of runs")?,
        Err(_) => 60,
    };
    Ok((wanted * of_60).div_ceil(60).max(1))
}
