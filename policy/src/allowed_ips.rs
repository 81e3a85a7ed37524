//! Allowed IPs: addresses, networks and domain names that are never blocked. An allowed address always wins.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::fields::{FieldError, plain_text};
use crate::ids::AllowedIpId;
use crate::net;

/// Longest note of an entry, in characters.
pub const NOTE_MAX_CHARS: usize = 200;

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AllowedTarget {
    /// An address or network, canonical.
    Net(IpNet),
    /// A host name that the agent resolves again when its TTL runs out.
    Domain(String),
}

impl std::fmt::Display for AllowedTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Net(net) => f.write_str(&net::display(net)),
            Self::Domain(name) => f.write_str(name),
        }
    }
}

/// A checked wish to allow something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedIpDraft {
    /// What to allow.
    pub target: AllowedTarget,
    /// Why, in the administrator's words; may be empty.
    pub note: String,
    /// When the entry ends by itself; `None` for never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedIp {
    /// Its id.
    pub id: AllowedIpId,
    /// What is allowed.
    pub target: AllowedTarget,
    /// Why.
    pub note: String,
    /// When it ends by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The e-mail address of who added it.
    pub created_by: String,
}

/// Parses what a form or a CSV row holds. `expires_at` is an RFC 3339 instant or empty; `now` decides whether it has passed.
///
/// # Errors
/// One error per wrong field (`target`, `note`, `expires_at`).
pub fn parse_draft(
    target: &str,
    note: &str,
    expires_at: &str,
    now: OffsetDateTime,
) -> Result<AllowedIpDraft, Vec<FieldError>> {
    let mut errors = Vec::new();
    let target = parse_target(target).map_err(|message| errors.push(FieldError::new("target", message)));
    let note = plain_text(note, NOTE_MAX_CHARS).map_err(|message| errors.push(FieldError::new("note", message)));
    let expires_at =
        parse_expiry(expires_at, now).map_err(|message| errors.push(FieldError::new("expires_at", message)));
    match (target, note, expires_at) {
        (Ok(target), Ok(note), Ok(expires_at)) => Ok(AllowedIpDraft { target, note, expires_at }),
        _ => Err(errors),
    }
}

/// Parses an address, a network or a domain name, and refuses what can't be allowed.
///
/// # Errors
/// The sentence to show.
pub fn parse_target(text: &str) -> Result<AllowedTarget, String> {
    let text = text.trim();
    if looks_like_domain(text) {
        return parse_domain(text).map(AllowedTarget::Domain);
    }
    let net = net::parse_net(text)?;
    match net::unusable(&net) {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(AllowedTarget::Net(net)),
    }
}

/// A name has a letter beyond the hexadecimal digits, or ends in a label that is no number, and holds no colon or slash.
fn looks_like_domain(text: &str) -> bool {
    !text.is_empty()
        && !text.contains([':', '/'])
        && text.trim_end_matches('.').rsplit('.').next().is_some_and(|label| label.chars().any(char::is_alphabetic))
}

/// Checks a host name (RFC 1123 §2.1): labels of letters, digits and hyphens, at most 253 characters; at least one dot.
fn parse_domain(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.contains('.') || !name.split('.').all(label_ok) {
        return Err(format!(
            "“{}” is not a domain name. Letters, digits and hyphens with dots between, such as office.example.com; write names in other alphabets in their xn-- form.",
            net::shorten(text)
        ));
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Err("localhost is the PBX itself, which is never filtered.".to_owned());
    }
    Ok(name)
}

/// Parses an optional RFC 3339 instant that lies ahead.
pub(crate) fn parse_expiry(text: &str, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let at = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map_err(|_| "Enter date and time such as 2030-01-31T18:00:00Z, or leave it empty for no end.".to_owned())?;
    if at <= now {
        return Err("This moment has passed. Choose one ahead, or leave it empty for no end.".to_owned());
    }
    if at.year() > 9000 {
        return Err("Choose a year before 9000, or leave it empty for no end.".to_owned());
    }
    Ok(Some(at))
}

/// The entry of the list that already allows all of the draft for at least as long, if any. `except` is the entry being edited.
pub fn covered_by<'a>(
    draft: &AllowedIpDraft,
    existing: &'a [AllowedIp],
    except: Option<AllowedIpId>,
) -> Option<&'a AllowedIp> {
    existing.iter().filter(|entry| Some(entry.id) != except).find(|entry| {
        let covers = match (&entry.target, &draft.target) {
            (AllowedTarget::Net(wide), AllowedTarget::Net(narrow)) => wide.contains(narrow),
            (AllowedTarget::Domain(a), AllowedTarget::Domain(b)) => a == b,
            (AllowedTarget::Net(_), AllowedTarget::Domain(_)) | (AllowedTarget::Domain(_), AllowedTarget::Net(_)) => {
                false
            }
        };
        let lasts = match (entry.expires_at, draft.expires_at) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => ours >= theirs,
        };
        // The same target twice is never two entries: to change how long it lasts, edit the one that is there.
        covers && (lasts || entry.target == draft.target)
    })
}

/// A warning when a network is so wide that one entry opens the PBX to a large part of the Internet.
pub fn too_wide(target: &AllowedTarget) -> Option<String> {
    let AllowedTarget::Net(net) = target else { return None };
    let (limit, wide) = match net {
        IpNet::V4(v4) => ("/16", v4.prefix_len() < 16),
        IpNet::V6(v6) => ("/32", v6.prefix_len() < 32),
    };
    wide.then(|| format!("{net} is wider than a {limit}: everyone in it gets past every protection. Narrow it, or confirm that you mean it."))
}

/// What a form sends; parsed by [`parse_draft`] on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AllowedIpForm {
    /// Address, network or domain name.
    pub target: String,
    /// Why.
    pub note: String,
    /// RFC 3339 instant, or empty.
    pub expires_at: String,
}

/// How adding ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The first new entry.
    pub id: AllowedIpId,
    /// How many entries were added.
    pub added: i64,
    /// How many were there already and were left as they are.
    pub skipped: i64,
    /// How many bans were lifted because the new entries cover them.
    pub lifted_bans: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-01 12:00 UTC);

    fn draft(target: &str, expires_at: Option<OffsetDateTime>) -> AllowedIpDraft {
        AllowedIpDraft { target: parse_target(target).unwrap(), note: String::new(), expires_at }
    }

    fn entry(target: &str, expires_at: Option<OffsetDateTime>) -> AllowedIp {
        let AllowedIpDraft { target, note, expires_at } = draft(target, expires_at);
        AllowedIp {
            id: uuid::Uuid::from_u128(7).into(),
            target,
            note,
            expires_at,
            created_at: NOW,
            created_by: String::new(),
        }
    }

    #[test]
    fn targets() {
        for (typed, kept) in [
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9/24", "203.0.113.0/24"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("2001:DB8::/32", "2001:db8::/32"),
            (" Office.Example.COM. ", "office.example.com"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            ("1.sip.example.com", "1.sip.example.com"),
        ] {
            assert_eq!(parse_target(typed).unwrap().to_string(), kept, "{typed}");
        }
        let long_label = format!("{}.example.com", "a".repeat(64));
        let long_name = format!("{}com", "abcdefg.".repeat(32));
        for bad in [
            "",
            "0.0.0.0/0",
            "::/0",
            "127.0.0.1",
            "::1",
            "224.0.0.1",
            "ff02::1",
            "0.0.0.0",
            "office",
            "-a.example.com",
            "a-.example.com",
            "a..example.com",
            "münchen.example",
            "a_b.example.com",
            "http://example.com",
            "example.com:5060",
            "a b.example.com",
            "localhost",
            "pbx.localhost",
            "203.0.113.9.example.com;",
            "*.example.com",
            &long_label,
            &long_name,
        ] {
            assert!(parse_target(bad).is_err_and(|sentence| !sentence.is_empty()), "{bad}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let errors = parse_draft("nonsense", &"x".repeat(201), "yesterday", NOW).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["target", "note", "expires_at"]);
        // Characters count, not bytes.
        assert!(parse_draft("203.0.113.9", &"é".repeat(200), "", NOW).is_ok());
        assert!(parse_draft("203.0.113.9", "two\nlines", "", NOW).is_err());
    }

    #[test]
    fn expiries() {
        assert_eq!(parse_expiry("  ", NOW), Ok(None));
        assert_eq!(parse_expiry("2030-01-01T14:00:01+02:00", NOW), Ok(Some(datetime!(2030-01-01 12:00:01 UTC))));
        for bad in [
            "2030-01-01T12:00:00Z",
            "2029-12-31T00:00:00Z",
            "9999-01-01T00:00:00Z",
            "2030-02-30T00:00:00Z",
            "2031-01-01",
            "soon",
            "😀",
        ] {
            assert!(parse_expiry(bad, NOW).is_err(), "{bad}");
        }
    }

    #[test]
    fn covered_by_the_wider_and_longer() {
        let soon = Some(NOW + time::Duration::HOUR);
        let later = Some(NOW + time::Duration::DAY);
        for (have, have_until, want, want_until, covered) in [
            ("203.0.113.0/24", None, "203.0.113.9", None, true),
            ("203.0.113.0/24", None, "203.0.113.9", soon, true),
            ("203.0.113.0/24", later, "203.0.113.9", soon, true),
            ("203.0.113.0/24", soon, "203.0.113.9", later, false),
            ("203.0.113.0/24", soon, "203.0.113.9", None, false),
            ("203.0.113.9", None, "203.0.113.0/24", None, false),
            ("203.0.113.9", soon, "203.0.113.9", None, true),
            ("2001:db8::/32", None, "2001:db8::9", None, true),
            ("2001:db8::/32", None, "203.0.113.9", None, false),
            ("office.example.com", None, "OFFICE.example.com", None, true),
            ("example.com", None, "office.example.com", None, false),
            ("203.0.113.0/24", None, "office.example.com", None, false),
        ] {
            let list = [entry(have, have_until)];
            let draft = draft(want, want_until);
            assert_eq!(
                covered_by(&draft, &list, None).is_some(),
                covered,
                "{have} {have_until:?} / {want} {want_until:?}"
            );
            assert!(covered_by(&draft, &list, Some(list[0].id)).is_none(), "an entry never covers itself");
        }
    }

    #[test]
    fn too_wide_from_a_16_and_a_32() {
        for (net, wide) in [
            ("10.0.0.0/16", false),
            ("10.0.0.0/15", true),
            ("2001:db8::/32", false),
            ("2001:db8::/31", true),
            ("a.example", false),
        ] {
            assert_eq!(too_wide(&parse_target(net).unwrap()).is_some(), wide, "{net}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_explains(text in ".{0,300}") {
            match parse_target(&text) {
                Ok(target) => prop_assert_eq!(parse_target(&target.to_string()).unwrap(), target),
                Err(sentence) => prop_assert!(!sentence.is_empty() && sentence.chars().count() < 300),
            }
        }

        #[test]
        fn a_network_covers_exactly_its_addresses(wide in 1u32.., length in 1u8..=32, narrow in 1u32..) {
            let net = |bits: u32, length| AllowedTarget::Net(IpNet::from(ipnet::Ipv4Net::new_assert(bits.into(), length).trunc()));
            let list = [AllowedIp { target: net(wide, length), ..entry("203.0.113.9", None) }];
            let wish = AllowedIpDraft { target: net(narrow, 32), note: String::new(), expires_at: None };
            prop_assert_eq!(covered_by(&wish, &list, None).is_some(), (wide ^ narrow).leading_zeros() >= u32::from(length));
        }
    }
}
