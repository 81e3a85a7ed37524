//! People: who has access to a tenant; what they type about themselves, e-mail addresses, short names of organisations, passwords.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::authz::Role;
use crate::fields::{FieldError, plain_text};
use crate::ids::{InvitationId, UserId};

/// Access that nobody has used for so long is worth a question.
pub const UNUSED: Duration = Duration::days(90);
/// How many days the link of an invitation works.
pub const INVITATION_DAYS: i64 = 7;
/// Most people of a tenant, those that are invited included.
pub const PEOPLE_MAX: i64 = 1_000;

/// A person in a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// Her e-mail address.
    pub email: String,
    /// What she is here.
    pub role: Role,
    /// Since when she has access.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Who invited her; empty for who made the tenant.
    pub invited_by: String,
    /// When she last logged in here.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
    /// Whether she is kept out for the time being.
    pub suspended: bool,
    /// Whether she has a second factor; until then nothing opens for her.
    pub second_factor: bool,
}

impl Person {
    /// Whether her access hasn't been used for [`UNUSED`].
    pub fn is_unused(&self, now: OffsetDateTime) -> bool {
        now - self.last_used_at.unwrap_or(self.since) >= UNUSED
    }
}

/// Somebody who is invited and has not come yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// To whom.
    pub email: String,
    /// As what.
    pub role: Role,
    /// By whom.
    pub invited_by: String,
    /// Until when its link works.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Who has access to a tenant, and who is invited; each by e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    /// Who has access.
    pub people: Vec<Person>,
    /// Who is invited.
    pub invitations: Vec<Invitation>,
}

/// What an invitation shows to who has its link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The organisation.
    pub organisation: String,
    /// To whom.
    pub email: String,
    /// As what.
    pub role: Role,
    /// By whom.
    pub invited_by: String,
    /// Whether there is an account with that e-mail address.
    pub has_account: bool,
    /// Whose this session is, if it is somebody's.
    pub signed_in_as: Option<String>,
}

/// Parses the form of an invitation.
///
/// # Errors
/// A sentence for each wrong field.
pub fn parse_invitation(email: &str, role: &str) -> Result<(String, Role), Vec<FieldError>> {
    match (parse_email(email), parse_role(role)) {
        (Ok(email), Ok(role)) => Ok((email, role)),
        (email, role) => {
            let wrong = [("email", email.err()), ("role", role.err())];
            Err(wrong.into_iter().filter_map(|(field, wrong)| Some(FieldError::new(field, wrong?))).collect())
        }
    }
}

/// Parses the stable name of a role.
///
/// # Errors
/// The sentence to show.
pub fn parse_role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "Choose a role.".to_owned())
}

/// Fewest characters of a portal password (NIST SP 800-63B-4, with a second factor).
pub const PASSWORD_MIN_CHARS: usize = 12;
/// Most characters of a portal password.
pub const PASSWORD_MAX_CHARS: usize = 128;

/// Parses an e-mail address; the result is in lower case.
///
/// # Errors
/// The sentence to show.
pub fn parse_email(text: &str) -> Result<String, String> {
    let refused = || "Enter an e-mail address such as name@example.com.".to_owned();
    let email = text.trim().to_lowercase();
    let (local, domain) = email.rsplit_once('@').ok_or_else(refused)?;
    let local_ok = !local.is_empty()
        && local.len() <= 64
        && local.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if email.len() <= 254 && local_ok && domain.contains('.') && domain.split('.').all(label_ok) {
        Ok(email)
    } else {
        Err(refused())
    }
}

/// Names that would read as ours in an address.
const RESERVED_SLUGS: [&str; 16] = [
    "admin",
    "agent",
    "api",
    "app",
    "dev",
    "docs",
    "help",
    "live",
    "login",
    "mail",
    "ringfence",
    "root",
    "status",
    "support",
    "system",
    "www",
];

/// Parses the short name of an organisation: 3 to 40 lower-case letters, digits and single hyphens between them.
///
/// # Errors
/// The sentence to show.
pub fn parse_slug(text: &str) -> Result<String, String> {
    let slug = text.trim().to_lowercase();
    let allowed = slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !(3..=40).contains(&slug.len())
        || !allowed
        || slug.starts_with('-')
        || slug.ends_with('-')
        || slug.contains("--")
    {
        return Err(
            "3 to 40 lower-case letters, digits and single hyphens between them, such as acme-telecom.".to_owned()
        );
    }
    if RESERVED_SLUGS.contains(&slug.as_str()) {
        return Err(format!("“{slug}” is reserved. Choose another short name."));
    }
    Ok(slug)
}

/// Parses the name of an organisation, a PBX or a person: 1 to 80 characters on one line.
///
/// # Errors
/// The sentence to show.
pub fn parse_name(text: &str) -> Result<String, String> {
    let name = plain_text(text, 80)?;
    if name.is_empty() { Err("Enter a name of up to 80 characters.".to_owned()) } else { Ok(name) }
}

/// Checks the length of a new password; any character counts, none is required (ASVS 5.0 6.2.5).
///
/// # Errors
/// The sentence to show.
pub fn check_password_length(password: &str) -> Result<(), String> {
    match password.chars().count() {
        0..PASSWORD_MIN_CHARS => {
            Err(format!("At least {PASSWORD_MIN_CHARS} characters. A few unrelated words make a good password."))
        }
        PASSWORD_MIN_CHARS..=PASSWORD_MAX_CHARS => Ok(()),
        _ => Err(format!("At most {PASSWORD_MAX_CHARS} characters.")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn access_that_nobody_uses_is_noticed() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(1_000);
        let person = |since: i64, used: Option<i64>| Person {
            id: UserId(uuid::Uuid::nil()),
            email: String::new(),
            role: Role::Auditor,
            since: now - Duration::days(since),
            invited_by: String::new(),
            last_used_at: used.map(|days| now - Duration::days(days)),
            suspended: false,
            second_factor: true,
        };
        for (since, used, unused) in [(1, None, false), (90, None, true), (400, Some(89), false), (400, Some(90), true)]
        {
            assert_eq!(person(since, used).is_unused(now), unused, "{since} {used:?}");
        }
    }

    #[test]
    fn invitations() {
        assert_eq!(parse_invitation(" Ann@Example.com", "auditor"), Ok(("ann@example.com".to_owned(), Role::Auditor)));
        let wrong = parse_invitation("ann", "king").unwrap_err();
        assert_eq!(wrong.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(), ["email", "role"]);
    }

    #[test]
    fn emails() {
        for (typed, kept) in [
            (" Ann@Example.COM ", "ann@example.com"),
            ("o'neil+pbx@mail.example.co.uk", "o'neil+pbx@mail.example.co.uk"),
            ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ] {
            assert_eq!(parse_email(typed).unwrap(), kept);
        }
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}com", "abcdefg.".repeat(32));
        for bad in [
            "",
            "ann",
            "ann@",
            "@example.com",
            "ann@localhost",
            "a@b@example.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a b@example.com",
            "a@exa mple.com",
            "a@-x.com",
            "a@x-.com",
            "a@x..com",
            "ann@example.com\r\nBcc: all@example.com",
            "ann@bücher.example",
            "“ann”@example.com",
            "ann@example.com,bob@example.com",
            "Ann <ann@example.com>",
            &long_local,
            &long,
        ] {
            assert!(parse_email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slugs() {
        let longest = "a".repeat(40);
        for good in ["abc", "acme-telecom", " ACME-7 ", "123", &longest] {
            assert_eq!(parse_slug(good).unwrap(), good.trim().to_lowercase());
        }
        let too_long = "a".repeat(41);
        for bad in ["", "ab", "-abc", "abc-", "a--b", "a_b", "a.b", "a b", "äbc", &too_long] {
            assert!(parse_slug(bad).is_err(), "{bad}");
        }
        for reserved in RESERVED_SLUGS {
            assert!(parse_slug(reserved).is_err(), "{reserved}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(parse_name(" Büro „Süd“ 🏢 ").unwrap(), "Büro „Süd“ 🏢");
        assert!(parse_name(&"é".repeat(80)).is_ok());
        for bad in ["", "  ", "two\nlines", "nul\0", &"é".repeat(81)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        for (count, good) in [(0, false), (11, false), (12, true), (128, true), (129, false)] {
            for character in ["a", "é", "🔑"] {
                assert_eq!(check_password_length(&character.repeat(count)).is_ok(), good, "{count} {character}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_parses_parses_again(text in "[ -~é\n]{0,90}") {
            for parse in [parse_email, parse_slug, parse_name] {
                if let Ok(kept) = parse(&text) {
                    prop_assert_eq!(parse(&kept), Ok(kept));
                }
            }
        }
    }
}
