//! Reads one setting after the other from environment, file and default, and collects what is wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::Url;

const PREFIX: &str = "RINGFENCE__";

/// A secret, or a URL that may hold one. Printed with the secret masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Masked(String);

impl Masked {
    /// The text with its secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Masked {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Masked {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Display for Masked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Url::parse(&self.0) {
            Ok(mut url) if url.has_host() => {
                if url.password().is_some() {
                    let _ = url.set_password(Some("***"));
                } else if matches!(url.scheme(), "nats" | "tls") && !url.username().is_empty() {
                    // There it is a token.
                    let _ = url.set_username("***");
                }
                if url.query_pairs().any(|(key, _)| key == "password") {
                    url.set_query(Some("***"));
                }
                f.write_str(url.as_str())
            }
            _ => f.write_str("***"),
        }
    }
}

impl std::fmt::Debug for Masked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(self, f)
    }
}

impl Serialize for Masked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a value came from, as errors name it, and its text.
type Given = (String, Vec<String>);

/// The values that were given, by key; a key that is read leaves.
#[derive(Debug)]
pub(super) struct Reader {
    given: BTreeMap<String, Given>,
    known: BTreeSet<&'static str>,
    errors: Vec<String>,
}

impl Reader {
    pub(super) fn new(toml: &str, environment: &BTreeMap<String, String>) -> Self {
        let mut reader = Self { given: BTreeMap::new(), known: BTreeSet::new(), errors: Vec::new() };
        match toml.parse::<toml::Table>() {
            Ok(table) => reader.add_table("", &table),
            Err(error) => reader.errors.push(format!("the configuration file: {}", error.to_string().trim_end())),
        }
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix(PREFIX) {
                let key = key.replace("__", ".").to_lowercase();
                reader.given.insert(key, (name.clone(), value.split(',').map(|part| part.trim().to_owned()).collect()));
            }
        }
        reader
    }

    fn add_table(&mut self, prefix: &str, table: &toml::Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Some(table) = value.as_table() {
                self.add_table(&key, table);
            } else {
                let parts =
                    value.as_array().map_or_else(|| vec![text_of(value)], |items| items.iter().map(text_of).collect());
                self.given.insert(key.clone(), (key, parts));
            }
        }
    }

    pub(super) fn was_given(&self, key: &'static str) -> bool {
        self.given.contains_key(key)
    }

    /// A setting that need not be there; an empty text is as good as none.
    pub(super) fn option<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<T> {
        self.known.insert(key);
        let (from, parts) = self.given.get(key)?.clone();
        let text = parts.join(",");
        if text.is_empty() {
            return None;
        }
        self.parse(&from, &text)
    }

    /// A setting with a default.
    pub(super) fn or<T: FromStr<Err: Display>>(&mut self, key: &'static str, default: T) -> T {
        self.option(key).unwrap_or(default)
    }

    /// A list: an array in the file, separated by commas in the environment.
    pub(super) fn list<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Vec<T> {
        self.known.insert(key);
        let Some((from, parts)) = self.given.get(key).cloned() else { return Vec::new() };
        parts.iter().filter(|part| !part.is_empty()).filter_map(|part| self.parse(&from, part)).collect()
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, from: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.errors.push(format!("{from}: “{text}”: {error}"))).ok()
    }

    /// What was wrong, keys that nobody knows included.
    pub(super) fn finish(self) -> Vec<String> {
        let Self { given, known, mut errors } = self;
        for (key, (from, _)) in given {
            if !known.contains(key.as_str()) {
                errors.push(format!("{from}: there is no such setting"));
            }
        }
        errors
    }
}

fn text_of(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
