//! The browser's reader: objects, lists, strings, whole numbers, `true`, `false`, `null`.

use std::fmt;

use serde::Deserialize;
#[cfg(any(test, not(feature = "ssr")))]
use serde::de::DeserializeOwned;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

/// How deep what we read may be nested; our types are far flatter.
const DEEPEST: u8 = 64;

/// Reads a value.
#[cfg(any(test, not(feature = "ssr")))]
pub(super) fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Unreadable> {
    let mut reader = Reader { rest: json, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    if reader.peek().is_none() { Ok(value) } else { Err(Unreadable) }
}

/// Reads an object whose members are of whatever kind, as words.
pub(super) fn members(json: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
    let mut reader = Reader { rest: json, depth: 0 };
    reader.take(b'{')?;
    let mut all = Vec::new();
    let mut members = Members { reader: &mut reader, first: true };
    while members.more(b'}')? {
        let name = members.reader.string()?;
        members.reader.take(b':')?;
        all.push((name, members.reader.words()?));
    }
    Ok(all)
}

/// It was no JSON, or not that of the type. Which of all that doesn't matter: the server that wrote it is newer.
#[derive(Debug)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreadable")
    }
}

impl std::error::Error for Unreadable {}

/// All of them, so that nothing that others would put into words is kept.
impl Error for Unreadable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self
    }

    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self
    }

    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        Self
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }

    fn missing_field(_: &'static str) -> Self {
        Self
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self
    }
}

/// What is still to be read.
struct Reader<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl Reader<'_> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (byte, rest) = self.rest.split_first().ok_or(Unreadable)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// Takes a byte that must be next.
    fn take(&mut self, wanted: u8) -> Result<(), Unreadable> {
        if self.took(wanted) { Ok(()) } else { Err(Unreadable) }
    }

    /// Takes a byte if it is next.
    fn took(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }

    /// Takes a word if it is next.
    fn word(&mut self, wanted: &[u8]) -> bool {
        self.peek();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn deeper(&mut self) -> Result<(), Unreadable> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(Unreadable) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, Unreadable> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'"' => return String::from_utf8(text).map_err(|_| Unreadable),
                b'\\' => {
                    let plain = match self.byte()? {
                        b'n' => '\n',
                        b't' => '\t',
                        b'r' => '\r',
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'u' => self.code_point()?,
                        other @ (b'"' | b'\\' | b'/') => char::from(other),
                        _ => return Err(Unreadable),
                    };
                    text.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
                }
                other => text.push(other),
            }
        }
    }

    /// What follows `\u`: one unit of UTF-16, or two.
    fn code_point(&mut self) -> Result<char, Unreadable> {
        let mut units = [self.unit()?, 0];
        let mut used = 1;
        if (0xD800..0xDC00).contains(&units[0])
            && let Some(rest) = self.rest.strip_prefix(b"\\u")
        {
            self.rest = rest;
            units[1] = self.unit()?;
            used = 2;
        }
        let units = units.into_iter().take(used);
        char::decode_utf16(units).next().and_then(Result::ok).ok_or(Unreadable)
    }

    fn unit(&mut self) -> Result<u16, Unreadable> {
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(Unreadable)?;
        self.rest = rest;
        digits.iter().try_fold(0, |unit, digit| {
            let digit = char::from(*digit).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
            Ok((unit << 4) | digit.ok_or(Unreadable)?)
        })
    }

    fn number<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Unreadable> {
        let negative = self.took(b'-');
        let (mut number, mut digits) = (0_i64, 0);
        while let Some(digit @ b'0'..=b'9') = self.rest.first().copied() {
            self.rest = self.rest.get(1..).unwrap_or_default();
            let digit = i64::from(digit - b'0');
            let digit = if negative { -digit } else { digit };
            number = number.checked_mul(10).and_then(|number| number.checked_add(digit)).ok_or(Unreadable)?;
            digits += 1;
        }
        let fraction = matches!(self.rest.first(), Some(b'.' | b'e' | b'E'));
        if digits == 0 || fraction { Err(Unreadable) } else { visitor.visit_i64(number) }
    }

    /// A value of whatever kind as people read it.
    fn words(&mut self) -> Result<String, Unreadable> {
        if self.peek() == Some(b'"') {
            return self.string();
        }
        if self.took(b'[') {
            self.deeper()?;
            let mut all = Vec::new();
            let mut members = Members { reader: self, first: true };
            while members.more(b']')? {
                all.push(members.reader.words()?);
            }
            self.depth -= 1;
            self.take(b']')?;
            return Ok(all.join(", "));
        }
        let before = self.rest;
        self.skip()?;
        let used = before.len() - self.rest.len();
        Ok(match before.get(..used).unwrap_or_default() {
            b"true" => "yes".to_owned(),
            b"false" => "no".to_owned(),
            other => String::from_utf8_lossy(other).into_owned(),
        })
    }

    /// Reads over a value of whatever kind.
    fn skip(&mut self) -> Result<(), Unreadable> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.deserialize_map(IgnoredAny).map(drop),
            Some(b'[') => self.deserialize_seq(IgnoredAny).map(drop),
            Some(b'-' | b'0'..=b'9') => {
                let is_part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let end = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
                self.rest = self.rest.get(end..).unwrap_or_default();
                Ok(())
            }
            _ if self.word(b"null") || self.word(b"true") || self.word(b"false") => Ok(()),
            _ => Err(Unreadable),
        }
    }
}

/// Those whose JSON is the same. Of our types only an instant that may be missing asks for anything, and is a string.
macro_rules! forward {
    ($($to:ident: $($from:ident)*;)*) => {
        $($(
            fn $from<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
                self.$to(visitor)
            }
        )*)*
    };
}

/// Those that none of our types needs.
macro_rules! refuse {
    ($($kind:ident)*) => {
        $(
            fn $kind<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
                Err(Unreadable)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'_> {
    type Error = Unreadable;

    forward! {
        number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
            deserialize_u64;
        deserialize_string: deserialize_str deserialize_identifier deserialize_any;
    }

    refuse! {
        deserialize_f32 deserialize_f64 deserialize_char deserialize_bytes deserialize_byte_buf
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let yes = self.word(b"true");
        if yes || self.word(b"false") { visitor.visit_bool(yes) } else { Err(Unreadable) }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_string(self.string()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.word(b"null") { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.word(b"null") { visitor.visit_unit() } else { Err(Unreadable) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deeper()?;
        self.take(b'[')?;
        let value = visitor.visit_seq(Members { reader: self, first: true })?;
        self.take(b']')?;
        self.depth -= 1;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deeper()?;
        self.take(b'{')?;
        let value = visitor.visit_map(Members { reader: self, first: true })?;
        self.take(b'}')?;
        self.depth -= 1;
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_map(visitor)
    }

    /// `"variant"`, or `{"variant": what it holds}`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        if self.peek() == Some(b'"') {
            let name: StringDeserializer<Unreadable> = self.string()?.into_deserializer();
            return visitor.visit_enum(name);
        }
        self.take(b'{')?;
        let value = visitor.visit_enum(Variant(self))?;
        self.take(b'}')?;
        Ok(value)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.skip()?;
        visitor.visit_unit()
    }
}

/// What stands between brackets, apart by commas.
struct Members<'r, 'a> {
    reader: &'r mut Reader<'a>,
    first: bool,
}

impl Members<'_, '_> {
    /// Whether there is another one.
    fn more(&mut self, end: u8) -> Result<bool, Unreadable> {
        if self.reader.peek() == Some(end) {
            return Ok(false);
        }
        if !self.first {
            self.reader.take(b',')?;
        }
        self.first = false;
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Members<'_, '_> {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unreadable> {
        if self.more(b']')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Members<'_, '_> {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unreadable> {
        if self.more(b'}')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Unreadable> {
        self.reader.take(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// A variant that holds something.
struct Variant<'r, 'a>(&'r mut Reader<'a>);

impl<'de> EnumAccess<'de> for Variant<'_, '_> {
    type Error = Unreadable;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Unreadable> {
        let name = seed.deserialize(&mut *self.0)?;
        self.0.take(b':')?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_> {
    type Error = Unreadable;

    fn unit_variant(self) -> Result<(), Unreadable> {
        <()>::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unreadable> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unreadable> {
        self.0.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Unreadable> {
        self.0.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests;
