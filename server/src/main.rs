//! The program `ringfence`.

use std::process::ExitCode;

use clap::Parser as _;
use server::commands::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::warn!("another TLS provider is installed");
    }
    commands::run(cli).await
}
