//! The text of an AMI stream, and packets with SIP challenges in them: nothing panics, and what an event says is bounded.
#![no_main]

use agent::pbx;
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;
use tokio::time::Instant;

fuzz_target!(|bytes: &[u8]| {
    for event in pbx::security_events_of_text(bytes, OffsetDateTime::UNIX_EPOCH) {
        for text in [&event.account, &event.session, &event.service] {
            assert!(text.chars().count() <= 256, "texts of attackers are cut");
        }
        assert_eq!(event.remote, event.remote.to_canonical(), "one source has one address");
    }
    let mut sent = pbx::Sent::default();
    // Twice: the first time nothing can be an answer.
    for _ in 0..2 {
        for (_, remote, nonce) in sent.see(bytes, Instant::now()) {
            assert_eq!(remote, remote.to_canonical(), "one source has one address");
            assert!(!nonce.is_empty());
        }
    }
});
