#!/usr/bin/env bash
# Installs what a build (first argument: build), `make run` (run), `make test` (test) or `make bench` (bench) needs and this machine lacks.
# Made for Debian 12.
# Safe to call again: what is there is left alone. Rust and Node must be there already.
source "$(dirname "$0")/lib.sh"

purpose=${1:-run}
case $purpose in build | run | test | bench) ;; *) die "usage: install-tools.sh build|run|test|bench" ;; esac

main() {
    have cargo || die "Rust is missing: install rustup, then call this again"
    have node && have npm || die "Node is missing: install Node 20 or newer with npm, then call this again"
    system_packages
    rust_target
    cargo_tool cargo-leptos 0.3.10 --locked --features no_downloads
    # Must be the very version of the library, which Cargo.toml pins. Its own lock file names older parts that no longer build together.
    cargo_tool wasm-bindgen-cli "$(sed -n 's/^wasm-bindgen = "=\(.*\)"/\1/p' "$REPO/Cargo.toml")"
    npm_tool binaryen 132.0.0 wasm-opt
    if [ "$purpose" = test ]; then
        cargo_tool sqlx-cli 0.9.0 --no-default-features --features postgres,rustls
        cargo_tool cargo-nextest 0.9.143 --locked
        cargo_tool cargo-deny 0.20.2 --locked
        node_modules "$REPO/end2end"
    fi
}

system_packages() {
    local wanted=() missing=() package
    have cc || wanted+=(build-essential)
    if [ "$purpose" != build ]; then
        have setpriv && have flock || wanted+=(util-linux)
        postgres_bin >/dev/null || wanted+=(postgresql)
    fi
    if [ "$purpose" = test ] || [ "$purpose" = bench ]; then
        have nft || wanted+=(nftables)
        have ip || wanted+=(iproute2)
        have psql || wanted+=(postgresql-client)
        have debootstrap || wanted+=(debootstrap)
    fi
    if [ "$purpose" = test ]; then
        have chromium || wanted+=(chromium fonts-dejavu-core)
        have ping || wanted+=(iputils-ping)
        have nats-server || wanted+=(nats-server)
        have faketime || wanted+=(faketime)
    fi
    for package in "${wanted[@]}"; do
        [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    have apt-get || die "please install with your system's package manager: ${missing[*]}"
    long "System packages: refreshing the list" as_root apt-get update
    long "System packages: ${missing[*]}" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

rust_target() {
    local target=wasm32-unknown-unknown
    [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || return 0
    have rustup || die "the Rust target $target is missing and there is no rustup to add it"
    long "Rust target $target" rustup target add "$target"
}

# cargo_tool PACKAGE VERSION [cargo install options…]
cargo_tool() {
    local package=$1 version=$2
    shift 2
    [[ $(cargo install --list) != *"$package v$version"* ]] || return 0
    # Some machines have it from elsewhere than cargo install.
    if [ "$package" = cargo-nextest ] && cargo nextest --version >/dev/null 2>&1; then return 0; fi
    # Tools run for seconds, but would be optimised for many minutes.
    long "$package $version (a few minutes, once)" env \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install "$package@$version" "$@"
}

# npm_tool PACKAGE VERSION COMMAND
npm_tool() {
    local package=$1 version=$2 command=$3 installed
    installed=$(sed -n 's/^ *"version": "\(.*\)",*/\1/p' "$CACHE/tools/node_modules/$package/package.json" 2>/dev/null || true)
    [ "$installed" != "$version" ] || [ ! -x "$CACHE/tools/node_modules/.bin/$command" ] || return 0
    mkdir -p "$CACHE/tools"
    long "$command ($package $version)" npm install --prefix "$CACHE/tools" --no-audit --no-fund "$package@$version"
}

node_modules() {
    # npm writes the hidden lock file last, so it is younger than the lock file once everything is there.
    [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ] && return 0
    long "Packages of $(basename "$1")" env PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix "$1" --no-audit --no-fund
}

main
