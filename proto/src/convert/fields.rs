//! Checks of single values that several messages share.

use ipnet::IpNet;
use policy::net;
use time::OffsetDateTime;
use uuid::Uuid;

use super::WireError;

/// 9999-12-31T23:59:59Z, the last second that people and databases agree on.
const LAST_SECOND: i64 = 253_402_300_799;

type Checked<T> = Result<T, WireError>;

/// A network or address in canonical text.
pub(super) fn net(field: &'static str, text: &str) -> Checked<IpNet> {
    let net = net::parse_net(text).map_err(|problem| WireError::new(field, problem))?;
    if net.to_string() != text && net::display(&net) != text {
        return Err(WireError::new(field, format!("not canonical: {}", net::display(&net))));
    }
    match net::unusable(&net) {
        Some(problem) => Err(WireError::new(field, problem)),
        None => Ok(net),
    }
}

/// Whole seconds since 1970; 0 is `None`.
pub(super) fn expiry(field: &'static str, seconds: i64) -> Checked<Option<OffsetDateTime>> {
    if seconds == 0 { Ok(None) } else { instant(field, seconds).map(Some) }
}

/// Whole seconds since 1970, not 0.
pub(super) fn instant(field: &'static str, seconds: i64) -> Checked<OffsetDateTime> {
    Some(seconds)
        .filter(|seconds| (1..=LAST_SECOND).contains(seconds))
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| WireError::new(field, format!("{seconds} is no time in seconds")))
}

/// Milliseconds since 1970, not 0.
pub(super) fn instant_ms(field: &'static str, ms: i64) -> Checked<OffsetDateTime> {
    Some(ms)
        .filter(|ms| (1..=LAST_SECOND * 1000).contains(ms))
        .and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok())
        .ok_or_else(|| WireError::new(field, format!("{ms} is no time in milliseconds")))
}

pub(super) fn to_seconds(at: Option<OffsetDateTime>) -> i64 {
    at.map_or(0, OffsetDateTime::unix_timestamp)
}

pub(super) fn to_ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Text for people: bounded, no control characters.
pub(super) fn text(field: &'static str, text: String, max_chars: usize) -> Checked<String> {
    if text.len() > max_chars * 4 || text.chars().count() > max_chars {
        return Err(WireError::new(field, format!("longer than {max_chars} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(WireError::new(field, "holds control characters"));
    }
    Ok(text)
}

/// Text for machines: bounded in bytes.
pub(super) fn short(field: &'static str, text: String, max: usize) -> Checked<String> {
    if text.len() <= max { Ok(text) } else { Err(WireError::new(field, format!("longer than {max} bytes"))) }
}

/// What [`text`] takes, made of any text.
pub(super) fn clean(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max_chars).collect()
}

pub(super) fn uuid(field: &'static str, bytes: &[u8]) -> Checked<Uuid> {
    let id = Uuid::from_slice(bytes).map_err(|_| WireError::new(field, "not 16 bytes"))?;
    if id.get_version_num() == 7 { Ok(id) } else { Err(WireError::new(field, "not a UUIDv7")) }
}

pub(super) fn bytes<const N: usize>(field: &'static str, bytes: &[u8]) -> Checked<[u8; N]> {
    bytes.try_into().map_err(|_| WireError::new(field, format!("{} bytes where {N} are due", bytes.len())))
}

/// `N` bytes, or none at all.
pub(super) fn optional_bytes<const N: usize>(field: &'static str, given: &[u8]) -> Checked<Option<[u8; N]>> {
    if given.is_empty() { Ok(None) } else { bytes(field, given).map(Some) }
}

/// A revision or sequence number.
pub(super) fn number(field: &'static str, number: i64) -> Checked<i64> {
    if number >= 0 { Ok(number) } else { Err(WireError::new(field, "negative")) }
}

pub(super) fn at_most(field: &'static str, length: usize, max: usize) -> Checked<()> {
    if length <= max {
        Ok(())
    } else {
        Err(WireError::new(field, format!("{length} entries, at most {max} are taken")))
    }
}

pub(super) fn within(field: &'static str, value: u32, range: std::ops::RangeInclusive<u32>) -> Checked<u32> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(WireError::new(field, format!("{value} is not within {} to {}", range.start(), range.end())))
    }
}
