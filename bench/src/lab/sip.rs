//! A SIP client that registers with a wrong password: REGISTER, and once more with a digest of the challenge (RFC 3261, RFC 2617).

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, bail, ensure};
use md5::{Digest as _, Md5};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::PBX;

const USER: &str = "1007";
const PATIENCE: Duration = Duration::from_secs(2);

/// Tries a wrong password once, and waits for its refusal; when the REGISTER that held it was sent.
pub(super) fn attempt(socket: &UdpSocket) -> anyhow::Result<Instant> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let call = Uuid::new_v4().simple().to_string();
    let here = socket.local_addr()?;
    socket.send(register(&call, here, 1, "").as_bytes())?;
    let challenge = answer(socket, &call, 1)?;
    let field = |name: &str| {
        let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    };
    let (realm, nonce) = field("realm").zip(field("nonce")).context("a challenge without realm or nonce")?;
    let opaque = field("opaque").map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
    let uri = format!("sip:{PBX}");
    let secret = hash(&format!("{USER}:{realm}:wrong-{call}"));
    let response = hash(&format!("{secret}:{nonce}:00000001:{call}:auth:{}", hash(&format!("REGISTER:{uri}"))));
    let authorization = format!(
        "Authorization: Digest username=\"{USER}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
         algorithm=MD5{opaque}, qop=auth, nc=00000001, cnonce=\"{call}\"\r\n"
    );
    let message = register(&call, here, 2, &authorization);
    let sent = Instant::now();
    socket.send(message.as_bytes())?;
    answer(socket, &call, 2)?;
    Ok(sent)
}

/// The refusal of a request, which a first one gets with a challenge.
fn answer(socket: &UdpSocket, call: &str, sequence: u32) -> anyhow::Result<String> {
    let mut buffer = [0; 4096];
    loop {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("Asterisk does not answer"),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        // Left over from another attempt.
        if !text.contains(call) || !text.contains(&format!("CSeq: {sequence} REGISTER")) {
            continue;
        }
        ensure!(text.starts_with("SIP/2.0 401"), "not refused: {}", text.lines().next().unwrap_or_default());
        if text.contains("algorithm=SHA") {
            bail!("Asterisk asks for another digest than MD5");
        }
        return Ok(text.into_owned());
    }
}

fn register(call: &str, here: SocketAddr, sequence: u32, authorization: &str) -> String {
    let branch = Uuid::new_v4().simple();
    format!(
        "REGISTER sip:{PBX} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{branch}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:{USER}@{PBX}>;tag={call}\r\n\
         To: <sip:{USER}@{PBX}>\r\n\
         Call-ID: {call}\r\n\
         CSeq: {sequence} REGISTER\r\n\
         Contact: <sip:{USER}@{here}>\r\n\
         Expires: 120\r\n\
         {authorization}Content-Length: 0\r\n\r\n"
    )
}

fn hash(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Md5::digest(text.as_bytes()))
}
