//! The text of an AMI stream, and packets with SIP challenges in them: nothing panics, and what an event says is bounded.
#![no_main]

use agent::pbx;
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;

fuzz_target!(|bytes: &[u8]| {
    for event in pbx::security_events_of_text(bytes, OffsetDateTime::UNIX_EPOCH) {
        for text in [&event.account, &event.session, &event.service] {
            assert!(text.chars().count() <= 256, "texts of attackers are cut");
        }
        assert_eq!(event.remote, event.remote.to_canonical(), "one source has one address");
    }
    if let Some((remote, nonces)) = pbx::challenges(bytes) {
        assert_eq!(remote, remote.to_canonical(), "one source has one address");
        assert!(nonces.iter().all(|nonce| !nonce.is_empty()));
    }
});
