//! One session of the Asterisk Manager Interface. Framing, bounds and parsing are the library's; its client is not used, since its typed
//! security events leave out the challenge, the session and the time, and its event bus drops events when they come fast.

use std::net::IpAddr;
use std::str::FromStr as _;

use asterisk_rs_ami::{AmiCodec, RawAmiMessage};
use futures::{SinkExt as _, StreamExt as _};
use md5::{Digest as _, Md5};
use policy::detection::{SecurityEvent, SecurityEventKind};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};
use tokio::net::TcpStream;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder as _, Framed};

/// `2026-11-23T05:44:50.123+0000`
const EVENT_TIME: &[BorrowedFormatItem<'_>] = format_description!(
    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3][offset_hour sign:mandatory][offset_minute]"
);
/// Longest text taken from an event; what phones send is shorter, what attackers send needn't be.
const TEXT_MAX: usize = 80;

/// Why a session ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum AmiError {
    /// No connection.
    #[error("connecting to {0}")]
    Connect(String, #[source] std::io::Error),
    /// The stream broke the protocol or the connection.
    #[error("AMI: {0}")]
    Stream(#[from] asterisk_rs_ami::AmiError),
    /// Asterisk refused the user or the secret.
    #[error("Asterisk refused the AMI login: {0}")]
    Login(String),
    /// Asterisk refused an action, most likely because the user may not do it.
    #[error("Asterisk refused {0}: {1}")]
    Refused(String, String),
    /// Asterisk closed the connection.
    #[error("Asterisk closed the AMI connection")]
    Closed,
    /// Nothing came in time.
    #[error("Asterisk did not answer in time")]
    Silent,
}

/// A session that is logged in.
#[derive(Debug)]
pub struct AmiSession {
    stream: Framed<TcpStream, AmiCodec>,
    actions: u64,
}

impl AmiSession {
    /// Connects and logs in; the secret itself never crosses the wire.
    pub async fn login(host: &str, port: u16, user: &str, secret: &str) -> Result<Self, AmiError> {
        let patience = std::time::Duration::from_secs(10);
        tokio::time::timeout(patience, Self::login_patiently(host, port, user, secret))
            .await
            .map_err(|_| AmiError::Silent)?
    }

    async fn login_patiently(host: &str, port: u16, user: &str, secret: &str) -> Result<Self, AmiError> {
        let connect = |error| AmiError::Connect(format!("{host}:{port}"), error);
        let socket = TcpStream::connect((host, port)).await.map_err(connect)?;
        socket.set_nodelay(true).map_err(connect)?;
        let mut session = Self { stream: Framed::new(socket, AmiCodec::new()), actions: 0 };
        let answer = session.ask("Challenge", &[("AuthType", "MD5")]).await?;
        let challenge = answer.get("Challenge").ok_or_else(|| AmiError::Login("it offers no challenge".to_owned()))?;
        let key = data_encoding::HEXLOWER.encode(&Md5::digest(format!("{challenge}{secret}")));
        let login = [("AuthType", "MD5"), ("Username", user), ("Key", &key), ("Events", "security")];
        match session.ask("Login", &login).await {
            Ok(_) => Ok(session),
            Err(AmiError::Refused(_, because)) => Err(AmiError::Login(because)),
            Err(error) => Err(error),
        }
    }

    /// Sends an action; its id, which its answer carries.
    pub async fn send(&mut self, action: &str, headers: &[(&str, &str)]) -> Result<String, AmiError> {
        self.actions += 1;
        let id = format!("ringfence-{}", self.actions);
        let headers = [("Action", action), ("ActionID", &id)]
            .iter()
            .chain(headers)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.stream
            .send(RawAmiMessage { headers, output: vec![], channel_variables: std::collections::HashMap::new() })
            .await?;
        Ok(id)
    }

    /// The next message, whatever it is.
    pub async fn next(&mut self) -> Result<RawAmiMessage, AmiError> {
        self.stream.next().await.ok_or(AmiError::Closed)?.map_err(AmiError::from)
    }

    /// Sends an action and waits for its answer; events meanwhile are lost, so only before they matter.
    pub async fn ask(&mut self, action: &str, headers: &[(&str, &str)]) -> Result<RawAmiMessage, AmiError> {
        let id = self.send(action, headers).await?;
        loop {
            let message = self.next().await?;
            if message.is_response() && message.get("ActionID") == Some(&id) {
                return if message.get("Response") == Some("Error") {
                    let because = message.get("Message").unwrap_or("without a reason");
                    Err(AmiError::Refused(action.to_owned(), because.to_owned()))
                } else {
                    Ok(message)
                };
            }
        }
    }
}

/// The security event that a message is, if it is one that detection reads. `now` stands in for a time that is missing or absurd.
pub fn security_event(message: &RawAmiMessage, now: OffsetDateTime) -> Option<SecurityEvent> {
    // Asterisk writes names that attackers chose as they came: a line break in one would forge the headers after it.
    // Who writes a header twice is not believed at all.
    let once = |name: &str| {
        let mut all = message.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let first = all.next().map(|(_, value)| value.as_str())?;
        all.next().is_none().then_some(first)
    };
    let kind = SecurityEventKind::from_name(once("Event")?)?;
    let (transport, remote) = remote_address(once("RemoteAddress")?)?;
    once("AccountID")?;
    once("SessionID")?;
    let text = |name| message.get(name).map(|value| value.chars().take(TEXT_MAX).collect::<String>());
    let at = message
        .get("EventTV")
        .and_then(|text| OffsetDateTime::parse(text, EVENT_TIME).ok())
        .filter(|at| (*at - now).abs() < Duration::HOUR)
        .unwrap_or(now);
    Some(SecurityEvent {
        at,
        kind,
        account: text("AccountID").unwrap_or_default(),
        session: text("SessionID").unwrap_or_default(),
        remote,
        transport,
        service: text("Service").unwrap_or_default(),
        challenge: text("Challenge").filter(|challenge| !challenge.is_empty()),
    })
}

/// The security events in the text of an AMI stream, for fuzzing and for recordings.
pub fn security_events_of_text(text: &[u8], now: OffsetDateTime) -> Vec<SecurityEvent> {
    let mut codec = AmiCodec::new();
    let mut bytes = BytesMut::from(&b"Asterisk Call Manager/11.0.0\r\n"[..]);
    bytes.extend_from_slice(text);
    std::iter::from_fn(|| codec.decode(&mut bytes).ok().flatten())
        .filter_map(|message| security_event(&message, now))
        .collect()
}

/// `IPV4/UDP/10.0.0.1/60968`: family, transport, address, port; nothing else passes.
fn remote_address(text: &str) -> Option<(String, IpAddr)> {
    let parts: Vec<&str> = text.split('/').collect();
    let [family, transport, address, port] = parts.as_slice() else { return None };
    // IPv6 comes bare or in brackets, link-local ones with their zone.
    let address = address.trim_start_matches('[').trim_end_matches(']').split('%').next()?;
    let address = IpAddr::from_str(address).ok()?;
    let fits = match *family {
        "IPV4" => address.is_ipv4(),
        "IPV6" => address.is_ipv6(),
        _ => false,
    };
    let known = ["UDP", "TCP", "TLS", "WS", "WSS"].contains(transport) && port.parse::<u16>().is_ok();
    (fits && known).then(|| ((*transport).to_owned(), address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\nEventTV: 2026-11-23T05:44:50.123+0000\r\nSeverity: Error\r\n\
        Service: PJSIP\r\nEventVersion: 1\r\nAccountID: 1007\r\nSessionID: a84b4c76e66710\r\nLocalAddress: IPV4/UDP/203.0.113.1/5060\r\n\
        RemoteAddress: IPV4/UDP/203.0.113.10/60968\r\nChallenge: 1732340690/abc\r\nResponse: 0f1e\r\nExpectedResponse: \r\n\r\n";

    #[test]
    fn reads_a_failure() {
        let now = time::macros::datetime!(2026-11-23 05:45 UTC);
        let event = security_events_of_text(FAILED.as_bytes(), now).remove(0);
        assert_eq!(event.at, time::macros::datetime!(2026-11-23 05:44:50.123 UTC));
        assert_eq!((event.kind, event.account.as_str()), (SecurityEventKind::ChallengeResponseFailed, "1007"));
        assert_eq!((event.remote, event.transport.as_str()), (IpAddr::from([203, 0, 113, 10]), "UDP"));
        assert_eq!(event.challenge.as_deref(), Some("1732340690/abc"));
        assert_eq!((event.session.as_str(), event.service.as_str()), ("a84b4c76e66710", "PJSIP"));
        let later = now + Duration::DAY;
        assert_eq!(
            security_events_of_text(FAILED.as_bytes(), later)[0].at,
            later,
            "a time that is far off is not believed"
        );
    }

    #[test]
    fn a_name_with_a_line_break_forges_nothing() {
        let now = time::macros::datetime!(2026-11-23 05:45 UTC);
        for forged in [
            "AccountID: \nRemoteAddress: IPV4/TCP/203.0.113.199/1\r\n",
            "AccountID: 1007\r\nAccountID: 1008\r\n",
            "AccountID: x\nEvent: SuccessfulAuth\r\n",
        ] {
            let text = FAILED.replace("AccountID: 1007\r\n", forged);
            assert_eq!(security_events_of_text(text.as_bytes(), now), [], "{forged:?}");
        }
    }

    #[test]
    fn reads_addresses() {
        for (text, transport, address) in [
            ("IPV4/UDP/10.0.0.1/60968", "UDP", "10.0.0.1"),
            ("IPV6/TCP/2001:db8::1/5060", "TCP", "2001:db8::1"),
            ("IPV6/TLS/[2001:db8::1]/5061", "TLS", "2001:db8::1"),
            ("IPV6/WSS/fe80::1%eth0/443", "WSS", "fe80::1"),
            ("IPV6/UDP/::ffff:192.0.2.1/5060", "UDP", "192.0.2.1"),
        ] {
            assert_eq!(remote_address(text), Some((transport.into(), address.parse().unwrap())), "{text}");
        }
        for bad in [
            "",
            "IPV4",
            "IPV4/UDP",
            "IPV4/UDP/nobody/1",
            "IPV4//10.0.0.1/1",
            "IPV4/U D P/10.0.0.1/1",
            "/T/203.0.113.199",
            "IPV6/UDP/10.0.0.1/1",
            "IPV4/UDP/10.0.0.1/1/2",
            "IPV4/UDP/10.0.0.1/",
        ] {
            assert_eq!(remote_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn skips_what_it_does_not_know() {
        let now = OffsetDateTime::UNIX_EPOCH;
        for text in [
            "Event: RequestNotSupported\r\nRemoteAddress: IPV4/UDP/10.0.0.1/1\r\n\r\n",
            "Event: ChallengeSent\r\n\r\n",
            "\r\n\r\n",
            ":\r\n\r\n",
        ] {
            assert_eq!(security_events_of_text(text.as_bytes(), now), []);
        }
    }
}
