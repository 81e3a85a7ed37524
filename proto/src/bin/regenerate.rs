//! Writes `proto/src/gen` anew from `proto/proto`. Needs no `protoc`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile([root.join("proto/ringfence/agent/v1/agent.proto")], [root.join("proto")])?;
    tonic_prost_build::configure().out_dir(root.join("src/gen")).compile_fds(files)?;
    Ok(())
}
