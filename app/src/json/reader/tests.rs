use policy::account::Stage;
use policy::fields::FieldError;
use policy::safety::{Change, PhoneLossLimit, Withheld};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::from_slice;
use crate::error::ApiError;

/// All that our types are made of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct All {
    yes: bool,
    least: i64,
    most: i64,
    small: u8,
    text: String,
    none: Option<String>,
    some: Option<i32>,
    list: Vec<Withheld>,
    pair: (u32, Vec<u32>),
    #[serde(with = "time::serde::rfc3339::option")]
    at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    never: Option<OffsetDateTime>,
    stage: Stage,
    limit: PhoneLossLimit,
    answer: Result<(), ApiError>,
    other: Result<u32, ApiError>,
}

fn all() -> All {
    let withheld = |change| Withheld {
        change,
        at: OffsetDateTime::UNIX_EPOCH,
        rolled_back: true,
        reason: String::new(),
        lines: vec!["a".to_owned(), "b, [c] {d}".to_owned()],
    };
    All {
        yes: true,
        least: i64::MIN,
        most: i64::MAX,
        small: 255,
        text: (0..0x300).chain(0x1F600..0x1F610).filter_map(char::from_u32).collect(),
        none: None,
        some: Some(-1),
        list: vec![
            withheld(Change::Policy(7)),
            withheld(Change::Ban("203.0.113.0/24".parse().unwrap())),
            withheld(Change::Ban("2001:db8::/48".parse().unwrap())),
        ],
        pair: (1, Vec::new()),
        at: Some(OffsetDateTime::UNIX_EPOCH),
        never: None,
        stage: Stage::NeedsCode,
        limit: PhoneLossLimit::default(),
        answer: Ok(()),
        other: Err(ApiError::Invalid { fields: vec![FieldError::new("name", "Enter a name.")] }),
    }
}

#[test]
fn reads_what_the_server_writes() {
    let all = all();
    let short = serde_json::to_vec(&all).unwrap();
    assert_eq!(from_slice::<All>(&short).unwrap(), all);
    assert_eq!(from_slice::<All>(&serde_json::to_vec_pretty(&all).unwrap()).unwrap(), all);
}

#[test]
fn what_a_newer_server_adds_is_read_over() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Old {
        id: u32,
    }
    let new = br#"{"a":{"b":[1,-2.5e3,"}\"",null]},"id":4,"c":true,"d":{},"e":[]}"#;
    assert_eq!(from_slice::<Old>(new).unwrap(), Old { id: 4 });
}

#[test]
fn escapes_are_those_of_json() {
    let read = |json: &str| from_slice::<String>(json.as_bytes()).ok();
    assert_eq!(read(r#""\u00e9\ud83d\ude00\n\/\\\"""#).as_deref(), Some("é😀\n/\\\""));
    for wrong in [
        r#""\ud83d""#,
        r#""\ud83dx""#,
        r#""\udc00""#,
        r#""\ud83d\u0041""#,
        r#""\ud83d \ude00""#,
        r#""\x""#,
        r#""\u12""#,
        r#"""#,
    ] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_something_else_is_refused() {
    for wrong in ["", "-", "1.5", "1e3", "256", "-1", "\"1\"", "null", "1 1", "9223372036854775808", "{}", "[1]"] {
        assert!(from_slice::<u8>(wrong.as_bytes()).is_err(), "{wrong}");
    }
    for wrong in ["[1,2", "[1 2]", "[1,]", "[,1]", "{}", "[1],", "[\"1\"]"] {
        assert!(from_slice::<Vec<u8>>(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(from_slice::<PhoneLossLimit>(b"101").is_err());
    assert!(from_slice::<Vec<serde::de::IgnoredAny>>("[".repeat(100_000).as_bytes()).is_err());
}

/// Cut off or changed anywhere, it is refused or read as something, and never ends the page.
#[test]
fn nothing_makes_it_panic() {
    let whole = serde_json::to_vec(&all()).unwrap();
    for end in 0..whole.len() {
        assert!(from_slice::<All>(&whole[..end]).is_err(), "cut at {end}");
    }
    for place in 0..whole.len() {
        for other in *b"\"\\{}[]:,0-.ux \xff" {
            let mut changed = whole.clone();
            changed[place] = other;
            let _ = from_slice::<All>(&changed);
        }
    }
}

#[test]
fn members_of_whatever_kind_read_as_words() {
    let read = |json: &str| super::members(json.as_bytes()).ok();
    let words =
        |all: &[(&str, &str)]| Some(all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
    assert_eq!(
        read(r#"{"before":20, "note":"a \"b\"","insisted":true,"targets":["10.0.0.1","::/8"],"list":[],"none":null}"#),
        words(&[
            ("before", "20"),
            ("note", "a \"b\""),
            ("insisted", "yes"),
            ("targets", "10.0.0.1, ::/8"),
            ("list", ""),
            ("none", "null"),
        ])
    );
    assert_eq!(read("{}"), words(&[]));
    for wrong in ["", "[]", "{\"a\"}", "{\"a\":}", &"{\"a\":[".repeat(100)] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}
