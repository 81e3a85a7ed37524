//! The command line of the agent.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent::clock::{Clock as _, SharedClock, SystemClock};
use agent::config::Config;
use agent::engine::{Engine, Inputs, Parts};
use agent::firewall::{Firewall, Memory, Nftables};
use agent::fleet::{Fleet, Told};
use agent::pbx::{Asterisk, Pbx, Simulated, watch_challenges};
use agent::state::StateDir;
use agent::status::{self, Status};
use agent::telemetry::Telemetry;
use agent::{dns, doctor, enrol, http, link, tls};
use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// Protects this phone system, and takes its orders from a Ringfence portal.
#[derive(Parser)]
#[command(name = "ringfence-agent", version)]
struct Arguments {
    /// Configuration file; without it /etc/ringfence-agent.toml, if there is one.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Where the agent keeps its key and what it must remember.
    #[arg(long, global = true)]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Becomes the agent of a PBX, with the one-time token that the portal shows.
    Enrol {
        /// The token.
        #[arg(long)]
        token: String,
        /// Where the server listens for agents (host:port), if not where the token says.
        #[arg(long)]
        server: Option<String>,
    },
    /// Protects this machine until it is stopped; the firewall stays in force afterwards.
    Run {
        /// Which phone system to watch.
        #[arg(long, value_enum, default_value_t = PbxKind::Asterisk)]
        pbx: PbxKind,
        /// What enforces; "memory" blocks nothing.
        #[arg(long, value_enum, default_value_t = FirewallKind::Nftables)]
        firewall: FirewallKind,
    },
    /// Shows what the running agent is doing.
    Status,
    /// Looks for what keeps the agent from protecting this machine.
    Doctor,
    /// Simulates many agents in one process, to size an installation; protects nothing.
    Fleet {
        /// What `ringfence fleet-seed` printed.
        #[arg(long)]
        members: PathBuf,
        /// How many of them; all, if not said.
        #[arg(long)]
        agents: Option<usize>,
        /// Bans that all of them together report in a second.
        #[arg(long, default_value_t = 0)]
        attacks: usize,
        /// Ends after so many seconds; runs until it is stopped, if not said.
        #[arg(long)]
        seconds: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PbxKind {
    Asterisk,
    Simulated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FirewallKind {
    Nftables,
    Memory,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start(arguments).unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(arguments.config.as_deref(), arguments.state_dir.as_deref())?;
    // Two threads are plenty: one for the engine, one for whatever else there is at the moment.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let collector = config.otlp_endpoint.clone().filter(|_| matches!(arguments.command, Command::Run { .. }));
    let telemetry = runtime.block_on(async { Telemetry::start(collector.as_deref()) })?;
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Enrol { token, server } => enrol_here(&config, &token, server.as_deref()).await,
            Command::Run { pbx, firewall } => run(config, pbx, firewall).await,
            Command::Status => show_status(&config),
            Command::Doctor => show_doctor(&config).await,
            Command::Fleet { members, agents, attacks, seconds } => simulate(&members, agents, attacks, seconds).await,
        }
    });
    telemetry.stop();
    done
}

async fn enrol_here(config: &Config, token: &str, server: Option<&str>) -> anyhow::Result<ExitCode> {
    let state = StateDir::open(&config.state_dir)?;
    let _lock = state.lock()?;
    let (identity, credentials) = enrol::enrol(token, server, &hostname()).await?;
    state.enrolled(&identity, &credentials).context("keeping the certificate")?;
    say(&format!(
        "This machine is now {} at {}. Start protecting it: ringfence-agent run",
        identity.pbx_name, identity.server
    ));
    Ok(ExitCode::SUCCESS)
}

async fn run(config: Config, pbx: PbxKind, firewall: FirewallKind) -> anyhow::Result<ExitCode> {
    let state = StateDir::open(&config.state_dir)?;
    let _lock = state.lock()?;
    let (identity, credentials) = state
        .identity()
        .zip(state.credentials())
        .context("this machine is not enrolled: add a PBX in the portal and run the command that it shows")?;
    let asked = match config.metrics_listen {
        Some(address) => Some(http::listen(address).await?),
        None => None,
    };
    let clock: SharedClock = Arc::new(SystemClock);
    let firewall: Box<dyn Firewall> = match firewall {
        FirewallKind::Nftables => Box::new(Nftables::open().context("reaching the kernel's firewall")?),
        FirewallKind::Memory => {
            warn!("The memory firewall only remembers: NOTHING IS BLOCKED on this machine");
            Box::new(Memory::default())
        }
    };
    let pbx: Box<dyn Pbx> = match pbx {
        PbxKind::Asterisk => Box::new(Asterisk::new(config.clone(), Arc::clone(&clock))),
        PbxKind::Simulated => Box::new(Simulated::new(config.simulation_seed, Arc::clone(&clock))),
    };
    let kernel = firewall.name() == "nftables";
    let names = watch::Sender::default();
    let answers = watch::Sender::default();
    let (closely, counted_closely) = watch::channel(false);
    let (pbx_events, from_pbx) = mpsc::channel(4_096);
    let (link_events, from_link) = mpsc::channel(64);
    let inputs = Inputs { pbx: from_pbx, link: from_link, answers: answers.subscribe() };
    tokio::spawn(dns::run(names.subscribe(), answers));
    let way = tls::Way::to(&identity.server);
    let kept = state.clone();
    let keep: link::Keep = Box::new(move |credentials| kept.renewed(credentials));
    let parts = Parts {
        clock: Arc::clone(&clock),
        state,
        identity,
        firewall,
        pbx_kind: pbx.kind(),
        hostname: hostname(),
        names,
        closely,
    };
    let engine = Engine::start(parts).await.context(
        "the firewall can't be loaded; ringfence-agent doctor says more, and --firewall memory runs without blocking anything",
    )?;
    let about = engine.about();
    if let Some(listener) = asked {
        tokio::spawn(http::serve(listener, engine.metrics()));
    }
    let link_clock = Arc::clone(&clock);
    tokio::spawn(async move { link::run(&way, credentials, keep, about, link_events, link_clock).await });
    if kernel {
        tokio::spawn(watch_challenges(pbx_events.clone(), Arc::clone(&clock)));
    }
    tokio::spawn(pbx.run(pbx_events, counted_closely));
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => info!("Asked to stop"),
            _ = interrupt.recv() => info!("Interrupted"),
        }
    };
    tokio::spawn(engine.run(inputs, stop)).await.context("the engine failed")?;
    Ok(ExitCode::SUCCESS)
}

/// 0 when all is well, 1 when something isn't, 3 when the agent isn't running.
fn show_status(config: &Config) -> anyhow::Result<ExitCode> {
    let state = StateDir::open(&config.state_dir)?;
    let now = SystemClock.now();
    let Some(found) = state.read_json::<Status>(status::FILE) else {
        say(&format!("No agent has run on {}", config.state_dir.display()));
        return Ok(ExitCode::from(3));
    };
    say(found.text(now).trim_end());
    let well = found.online && found.enforced && found.pbx_down_because.is_empty();
    Ok(ExitCode::from(if found.is_fresh(now) { u8::from(!well) } else { 3 }))
}

/// 0 when nothing is wrong, 1 otherwise.
async fn show_doctor(config: &Config) -> anyhow::Result<ExitCode> {
    let checks = doctor::examine(config, &SystemClock).await;
    for check in &checks {
        match &check.result {
            Ok(found) => say(&format!("ok     {:<12} {found}", check.name)),
            Err(error) => say(&format!("WRONG  {:<12} {error:#}", check.name)),
        }
    }
    Ok(ExitCode::from(u8::from(checks.iter().any(|check| check.result.is_err()))))
}

/// Runs a fleet and says each second how it is.
async fn simulate(
    members: &std::path::Path,
    agents: Option<usize>,
    attacks: usize,
    seconds: Option<u64>,
) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(members).with_context(|| format!("reading {}", members.display()))?;
    let mut members = Fleet::read(&text)?;
    members.truncate(agents.unwrap_or(usize::MAX));
    let count = members.len();
    let (events, mut told) = mpsc::unbounded_channel();
    let clock: SharedClock = Arc::new(SystemClock);
    let fleet = Fleet::start(members, Duration::from_millis(2 * count as u64), &events, &clock);
    let (mut connected, mut policies, mut bans, mut stored, mut second, mut next) = (0usize, 0, 0, 0, 0, 0);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            Some(event) = told.recv() => match event.told {
                Told::Connected => connected += 1,
                Told::Gone => connected = connected.saturating_sub(1),
                Told::Policy(_) => policies += 1,
                Told::Bans(_) => bans += 1,
                Told::Stored(count) => stored += count,
            },
            _ = tick.tick() => {
                say(&format!("{second} s: {connected} of {count} connected, {policies} policies, {bans} sets of bans, {stored} events stored"));
                (policies, bans, stored) = (0, 0, 0);
                if seconds.is_some_and(|most| second >= most) {
                    return Ok(ExitCode::SUCCESS);
                }
                second += 1;
                for _ in 0..attacks.min(count * 50) {
                    fleet.attack(next, 1).await;
                    next = (next + 1) % count.max(1);
                }
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to a command")]
fn say(text: &str) {
    println!("{text}");
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
