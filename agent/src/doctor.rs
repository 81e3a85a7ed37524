//! Looks for what keeps the agent from protecting its machine, and says what to do about it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use policy::detection::SecurityEventKind;
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::config::Config;
use crate::firewall::{self, Firewall as _, FirewallError, Nftables};
use crate::pbx::{AmiSession, security_event};
use crate::state::StateDir;
use crate::status::{self, Status};
use crate::tls;

/// One thing that was looked at.
#[derive(Debug)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found, or what is wrong and what to do.
    pub result: anyhow::Result<String>,
}

/// Looks at everything.
pub async fn examine(config: &Config, clock: &dyn Clock) -> Vec<Check> {
    let state = StateDir::open(&config.state_dir);
    let mut checks = vec![
        Check { name: "nft command", result: nft().await },
        Check { name: "Firewall", result: table(clock.now()).await },
        Check { name: "Asterisk", result: asterisk(config, clock).await },
    ];
    match state {
        Ok(state) => {
            checks.push(Check { name: "Certificate", result: certificate(&state, clock.now()) });
            checks.push(Check { name: "Server", result: server(&state).await });
            checks.push(Check { name: "Agent", result: running(&state, clock.now()) });
        }
        Err(error) => checks.push(Check { name: "State", result: Err(error) }),
    }
    checks
}

async fn nft() -> anyhow::Result<String> {
    firewall::nft_version().await.context("nft is missing; apt install nftables")
}

async fn table(now: OffsetDateTime) -> anyhow::Result<String> {
    let found = match async { Nftables::open()?.inspect(now).await }.await {
        Ok(found) => found,
        Err(FirewallError::Kernel(rustix::io::Errno::PERM)) => {
            bail!("no right to change the firewall; run as root or with CAP_NET_ADMIN")
        }
        Err(error) => return Err(error).context("the kernel's firewall can't be read"),
    };
    ensure!(
        found.problems.is_empty(),
        "the table inet ringfence is missing or incomplete ({}); start ringfence-agent run, it loads it",
        found.problems.join(", ")
    );
    ensure!(found.ahead.is_empty(), "others may drop what is never to be blocked: {}", found.ahead.join(", "));
    Ok(format!("table inet ringfence is complete: {} ranges never blocked, {} bans", found.allowed.len(), found.bans))
}

/// Logs in twice: the second login raises a security event, which the first session sees if its user may read them.
async fn asterisk(config: &Config, clock: &dyn Clock) -> anyhow::Result<String> {
    let Config { ami_host, ami_port, ami_user, ami_secret, .. } = config;
    let login = || AmiSession::login(ami_host, *ami_port, ami_user, ami_secret);
    let mut session = login().await.with_context(|| {
        format!(
            "set ami_user and ami_secret in {}, and enabled=yes in Asterisk's manager.conf",
            crate::config::DEFAULT_FILE
        )
    })?;
    let settings = session
        .ask("CoreSettings", &[])
        .await
        .with_context(|| format!("phones can't be counted: give user {ami_user} write=system in manager.conf"))?;
    let version = settings.get("AsteriskVersion").unwrap_or("of unknown version").to_owned();
    let _second = login().await?;
    let seen = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            let message = session.next().await?;
            if security_event(&message, clock.now())
                .is_some_and(|event| event.kind == SecurityEventKind::SuccessfulAuth)
            {
                return anyhow::Ok(());
            }
        }
    });
    seen.await
        .with_context(|| format!("user {ami_user} gets no security events: give it read=security in manager.conf"))??;
    Ok(format!("{version}, security events arrive"))
}

fn certificate(state: &StateDir, now: OffsetDateTime) -> anyhow::Result<String> {
    let credentials =
        state.credentials().context("not enrolled; add a PBX in the portal and run the command that it shows")?;
    let until = tls::valid_until(&credentials)?;
    ensure!(until > now, "the certificate ended on {until}; enrol again with a new token");
    Ok(format!("valid until {until}"))
}

async fn server(state: &StateDir) -> anyhow::Result<String> {
    let (identity, credentials) = state.identity().zip(state.credentials()).context("not enrolled")?;
    tls::connect(&tls::Way::to(&identity.server), tls::mutual(&credentials)?)
        .await
        .with_context(|| format!("open TCP to {} in the firewall on the way out", identity.server))?;
    Ok(format!("{} answers, and is the one that this agent enrolled at", identity.server))
}

fn running(state: &StateDir, now: OffsetDateTime) -> anyhow::Result<String> {
    ensure!(Path::new(&state.file(status::FILE)).exists(), "never ran here; systemctl start ringfence-agent");
    let status: Status = state.read_json(status::FILE).context("its status can't be read")?;
    ensure!(status.is_fresh(now), "not running since {}; systemctl start ringfence-agent", status.at);
    ensure!(
        status.clock_apart_seconds.abs() <= 5,
        "this machine's clock is {} s off the server's; run an NTP client",
        status.clock_apart_seconds
    );
    ensure!(status.online, "running, but not connected: {}", status.offline_because);
    ensure!(
        status.firewall == "nftables",
        "running with the memory firewall: nothing is blocked; start it with --firewall nftables"
    );
    Ok(format!("running, version {}, connected", status.version))
}
