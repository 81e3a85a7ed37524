//! What people type into a search field: an address, a network, the beginning of an address, or a word.

use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;
use store::blocked_ips::NetRange;
use time::OffsetDateTime;
use uuid::Uuid;

/// A search field, understood.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    /// Networks that contain or are contained in this one.
    pub range: Option<NetRange>,
    /// A word.
    pub word: Option<String>,
}

/// Longest search, in characters; the rest is cut.
const MAX_CHARS: usize = 100;

pub(crate) fn typed(text: &str) -> Typed {
    let text: String = text.trim().chars().take(MAX_CHARS).filter(|c| !c.is_control()).collect();
    if text.is_empty() {
        return Typed::default();
    }
    match policy::net::parse_net(&text).ok().or_else(|| beginning(&text)) {
        Some(net) => Typed { range: Some(NetRange::of(net)), word: None },
        None => Typed { range: None, word: Some(text) },
    }
}

/// `203.0.113` and `203.0.` are the beginnings of IPv4 addresses.
fn beginning(text: &str) -> Option<IpNet> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let octets: Vec<u8> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    // A single number is an extension more often than an address.
    if !(2..=3).contains(&octets.len()) {
        return None;
    }
    let at = |index: usize| octets.get(index).copied().unwrap_or(0);
    let length = u8::try_from(octets.len() * 8).ok()?;
    Ipv4Net::new(Ipv4Addr::new(at(0), at(1), at(2), 0), length).ok().map(IpNet::V4)
}

/// Where a page begins: the instant and id of the last row before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor(pub OffsetDateTime, pub Uuid);

impl Cursor {
    /// Reads what `Display` wrote; anything else begins at the start.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (at, id) = text.split_once('.')?;
        let at = OffsetDateTime::from_unix_timestamp_nanos(at.parse().ok()?).ok()?;
        // PostgreSQL's years end before those of the cursor's number do.
        (1970..9999).contains(&at.year()).then_some(())?;
        Some(Self(at, Uuid::parse_str(id).ok()?))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.unix_timestamp_nanos(), self.1.simple())
    }
}

/// How many rows all pages have together, where the rows that were read tell: a first page that isn't full is all there is, and
/// need not be looked for a second time.
pub(crate) fn known_total<T>(rows: &[T], before: Option<Cursor>) -> Option<i64> {
    let read = i64::try_from(rows.len()).ok()?;
    (before.is_none() && read <= policy::paging::PAGE_ROWS).then_some(read)
}

/// Cuts the row that was read beyond the page, and tells where the next page begins if there was one.
pub(crate) fn next_cursor<T>(rows: &mut Vec<T>, cursor: impl Fn(&T) -> Cursor) -> Option<String> {
    let page = usize::try_from(policy::paging::PAGE_ROWS).unwrap_or(usize::MAX);
    if rows.len() <= page {
        return None;
    }
    rows.truncate(page);
    rows.last().map(|row| cursor(row).to_string())
}
