//! JSON as pages and server speak it. The server reads what anybody may send, and reads it with `serde_json`. The browser
//! reads only what our server wrote: its reader knows what our types are made of and nothing else, and an error of it has no
//! words, which makes it a fraction of the size.

use codee::{Decoder, Encoder};
use leptos::server_fn::codec::Post;
use leptos::server_fn::{Bytes, ContentType, Decodes, Encodes, Format, FormatType};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The codec of server functions.
pub(crate) type Json = Post<JsonEncoding>;

/// JSON in bodies of requests and answers, and in the page for what it came with.
#[derive(Debug)]
pub struct JsonEncoding;

impl ContentType for JsonEncoding {
    const CONTENT_TYPE: &'static str = "application/json";
}

impl FormatType for JsonEncoding {
    const FORMAT_TYPE: Format = Format::Text;
}

impl<T: Serialize> Encodes<T> for JsonEncoding {
    type Error = serde_json::Error;

    fn encode(value: &T) -> Result<Bytes, Self::Error> {
        serde_json::to_vec(value).map(Bytes::from)
    }
}

impl<T: Serialize> Encoder<T> for JsonEncoding {
    type Error = serde_json::Error;
    type Encoded = String;

    fn encode(value: &T) -> Result<String, Self::Error> {
        serde_json::to_string(value)
    }
}

impl<T: DeserializeOwned> Decodes<T> for JsonEncoding {
    type Error = ReadError;

    fn decode(bytes: Bytes) -> Result<T, Self::Error> {
        read(&bytes)
    }
}

impl<T: DeserializeOwned> Decoder<T> for JsonEncoding {
    type Error = ReadError;
    type Encoded = str;

    fn decode(text: &str) -> Result<T, Self::Error> {
        read(text.as_bytes())
    }
}

#[cfg(feature = "ssr")]
type ReadError = serde_json::Error;
#[cfg(not(feature = "ssr"))]
type ReadError = reader::Unreadable;

#[cfg(feature = "ssr")]
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(json)
}

#[cfg(not(feature = "ssr"))]
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, ReadError> {
    reader::from_slice(json)
}

/// The members of an object as people read them: names, and values without quotes and brackets; none when it is no object.
pub(crate) fn members(json: &str) -> Vec<(String, String)> {
    reader::members(json.as_bytes()).unwrap_or_default()
}

mod reader;
