//! Addresses, networks and domain names as people type them: nothing panics, and what was parsed reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{allowed_ips, net};

fuzz_target!(|text: &str| {
    if let Ok(parsed) = net::parse_net(text) {
        assert_eq!(net::canonical(parsed), parsed, "a parsed network is canonical");
        assert_eq!(net::parse_net(&net::display(&parsed)), Ok(parsed), "a shown network reads back as itself");
        let _ = net::unusable(&parsed);
        let _ = net::source_key(parsed.addr());
    }
    let _ = allowed_ips::parse_target(text);
});
