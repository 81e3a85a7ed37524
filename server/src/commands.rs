//! What the program is told on its command line.

mod output;
pub mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigErrors};
use crate::installation::Installation;
use crate::observe::telemetry::Telemetry;

/// The Ringfence portal.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, about)]
pub struct Cli {
    /// TOML file with settings. The environment (`RINGFENCE__SECTION__KEY`) wins over it.
    #[arg(long, global = true, env = "RINGFENCE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the portal: pages, agents, jobs.
    Serve,
    /// Prints the settings with secrets masked, or everything that is wrong with them.
    CheckConfig,
    /// The audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Makes the demo tenant and prints its login. For development only.
    DemoSeed {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes tenants with enrolled PBXes and prints their keys, a line each, for `ringfence-agent fleet`. For development only.
    FleetSeed {
        /// How many tenants.
        #[arg(long, default_value_t = 10)]
        tenants: usize,
        /// How many PBXes each.
        #[arg(long, default_value_t = 10)]
        agents_each: usize,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Verifies the hash chain of every tenant; fails when one is broken.
    Verify,
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(ConfigErrors(errors)) => {
            for error in errors {
                output::error(&error);
            }
            return ExitCode::FAILURE;
        }
    };
    let collector = config.tracing.otlp_endpoint.as_ref().filter(|_| matches!(cli.command, Command::Serve));
    let telemetry = match Telemetry::start(collector) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            output::error(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let done = match cli.command {
        Command::Serve => Box::pin(serve::run(config)).await.map(|()| true),
        Command::CheckConfig => {
            output::print(config.to_toml().trim_end());
            Ok(true)
        }
        Command::Audit(Audit::Verify) => verify_audit(&config).await,
        Command::DemoSeed { json } => seed_demo(&config, json).await.map(|()| true),
        Command::FleetSeed { tenants, agents_each } => seed_fleet(&config, tenants, agents_each).await.map(|()| true),
    };
    telemetry.stop().await;
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn verify_audit(config: &Config) -> anyhow::Result<bool> {
    let (installation, _) = Installation::open(config).await?;
    let verdicts = actions::audit::verify_all(&installation.ctx).await;
    installation.close().await?;
    let mut whole = true;
    for (tenant, verdict) in verdicts.context("reading the audit log")? {
        match verdict.broken {
            None => output::print(&format!(
                "tenant {tenant}: {} rows, whole, last hash {}",
                verdict.rows, verdict.last_hash
            )),
            Some(broken) => {
                whole = false;
                output::print(&format!("tenant {tenant}: BROKEN at row {}: {}", broken.seq, broken.problem));
            }
        }
    }
    Ok(whole)
}

async fn seed_fleet(config: &Config, tenants: usize, agents_each: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.is_private() && config.development.mailbox,
        "a simulated fleet is made only in a private development database (no database.url, development.mailbox on)"
    );
    let (installation, _) = Installation::open(config).await?;
    let mut made = Ok(());
    for tenant in 0..tenants {
        match actions::demo::fleet(&installation.ctx, tenant, agents_each).await {
            Ok(members) => {
                for member in members {
                    output::print(&serde_json::to_string(&member)?);
                }
            }
            Err(error) => {
                made = Err(error);
                break;
            }
        }
    }
    installation.close().await?;
    made.context("making the fleet")
}

async fn seed_demo(config: &Config, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.is_private() && config.development.mailbox,
        "a demo tenant has a known login: it is made only in a private development database (no database.url, development.mailbox on)"
    );
    let (installation, _) = Installation::open(config).await?;
    let demo = actions::demo::seed(&installation.ctx).await;
    installation.close().await?;
    let demo = demo.context("making the demo tenant")?;
    if json {
        output::print(&serde_json::to_string(&demo)?);
    } else {
        output::print(&format!(
            "E-mail    {}\nPassword  {}\nTOTP key  {}",
            demo.email, demo.password, demo.totp_secret
        ));
        if let Some(token) = demo.enrolment_token {
            output::print(&format!("Connect   ringfence-agent enrol --token {token}"));
        }
    }
    Ok(())
}
