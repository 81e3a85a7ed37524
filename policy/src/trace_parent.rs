//! Where in a trace something happened, as the W3C writes it (`traceparent`), so that one trace goes on in another process.

use std::fmt;

/// Version, trace, span, flags.
const LENGTH: usize = 55;

/// A checked `traceparent` of version 00.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// Reads one; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            let hexadecimal = |part: &&str| {
                part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            };
            parts.next().filter(hexadecimal)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let zero = |part: &str| part.bytes().all(|b| b == b'0');
        let fits = text.len() == LENGTH && version == "00" && !zero(trace) && !zero(span) && !flags.is_empty();
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trace's id, the span's, and the flags, in hexadecimal.
    pub fn parts(&self) -> (&str, &str, &str) {
        (&self.0[3..35], &self.0[36..52], &self.0[53..])
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn one_is_read_and_taken_apart() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!(parent.parts(), ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01"));
        assert_eq!(parent.to_string(), GOOD);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("00-4b", "01-4b"),
            &format!("{GOOD}-00"),
            &format!(" {GOOD}"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            "00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
