//! The text of an AMI stream, and packets with SIP challenges in them: nothing panics, and what an event says is bounded.
#![no_main]

use agent::pbx::{ami, challenges};
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;

fuzz_target!(|bytes: &[u8]| {
    if let Some(event) = ami::security_event_of_text(bytes, OffsetDateTime::UNIX_EPOCH) {
        for text in [&event.account, &event.session, &event.service] {
            assert!(text.chars().count() <= 256, "texts of attackers are cut");
        }
        assert_eq!(event.remote, event.remote.to_canonical(), "one source has one address");
    }
    if let Some((remote, nonces)) = challenges::challenges(bytes) {
        assert_eq!(remote, remote.to_canonical());
        assert!(nonces.iter().all(|nonce| !nonce.is_empty()));
    }
});
