//! Allowed IPs as an uploaded file: nothing panics, and either every row is taken or errors name their lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::csv_text;
use time::OffsetDateTime;

fuzz_target!(|bytes: &[u8]| {
    match csv_text::parse_allowed_ips(bytes, OffsetDateTime::UNIX_EPOCH) {
        Ok(drafts) => {
            assert!(!drafts.is_empty() && drafts.len() <= csv_text::MAX_ROWS);
            assert!(drafts.iter().all(|(line, _)| *line >= 1));
        }
        Err(errors) => assert!(!errors.is_empty() && errors.iter().all(|error| error.line >= 1 && !error.message.is_empty())),
    }
});
