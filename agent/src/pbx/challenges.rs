//! Which challenges the PBX sent to whom and who answered them, read off the packets. Only an answer to such a challenge proves that a
//! source of UDP packets is where it says: Asterisk 22 reports `ChallengeSent` with an empty challenge, takes no more notice of a made-up one
//! than of a wrong password, and of several `Authorization` headers reports the first and checks another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::detection::{SecurityEvent, SecurityEventKind};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::PbxEvent;
use crate::clock::SharedClock;
use crate::firewall::PacketLog;

/// The rules are put in place again this often, in case somebody flushed them.
const RULES_EVERY: Duration = Duration::from_mins(1);
/// Shortest and longest nonce kept; Asterisk's have 43 characters.
const NONCE_MIN: usize = 8;
const NONCE_MAX: usize = 64;
/// How long a nonce is remembered; Asterisk's live 32 s.
const NONCE_LIVES: Duration = Duration::from_mins(1);
/// Most nonces that are remembered; the oldest go first.
const NONCES_MAX: usize = 131_072;

/// Tells of every challenge, until nobody listens. Where the kernel can't do it, it says so and attacks over UDP lead to no bans.
pub async fn watch(events: mpsc::Sender<PbxEvent>, clock: SharedClock) {
    if let Err(refused) = PacketLog::load_rules().await {
        warn!(error = %refused, "Challenges can't be watched on this machine: failures over UDP stay unproven and ban nobody");
        return;
    }
    let listener = events.clone();
    let started = std::thread::Builder::new().name("challenges".to_owned()).spawn(move || listen(&listener, &clock));
    if let Err(error) = started {
        error!(%error, "Challenges can't be watched: failures over UDP stay unproven and ban nobody");
        return;
    }
    while tokio::time::timeout(RULES_EVERY, events.closed()).await.is_err() {
        if let Err(refused) = PacketLog::load_rules().await {
            warn!(error = %refused, "The rules that watch challenges could not be renewed");
        }
    }
}

fn listen(events: &mpsc::Sender<PbxEvent>, clock: &SharedClock) {
    let log = match PacketLog::open() {
        Ok(log) => log,
        Err(refused) => {
            warn!(error = %refused, "Challenges can't be watched: failures over UDP stay unproven and ban nobody");
            return;
        }
    };
    info!("Watching the challenges that this machine sends");
    let mut buffer = Vec::new();
    let mut sent = Sent::default();
    while !events.is_closed() {
        let read = log.read(&mut buffer, |packet| {
            let now = Instant::now();
            for (kind, remote, nonce) in sent.see(packet, now) {
                // Full when the engine is drowning in events; then a failure more is unproven.
                let _ = events.try_send(PbxEvent::Security(seen(kind, remote, nonce, clock), now));
            }
        });
        if let Err(refused) = read {
            error!(error = %refused, "Challenges can't be watched any more: failures over UDP stay unproven and ban nobody");
            return;
        }
    }
}

fn seen(kind: SecurityEventKind, remote: IpAddr, nonce: String, clock: &SharedClock) -> SecurityEvent {
    SecurityEvent {
        at: Arc::clone(clock).now(),
        kind,
        account: String::new(),
        session: String::new(),
        remote,
        transport: "UDP".to_owned(),
        service: String::new(),
        challenge: Some(nonce),
    }
}

/// The challenges of the last minute.
#[derive(Debug, Default)]
pub struct Sent {
    nonces: HashMap<IpAddr, HashSet<String>>,
    order: VecDeque<(Instant, IpAddr, String)>,
}

impl Sent {
    /// What an IP packet that leaves or comes in means: challenges sent to an address, or one of them answered by it.
    pub fn see(&mut self, packet: &[u8], now: Instant) -> Vec<(SecurityEventKind, IpAddr, String)> {
        let Some(Datagram { from, to, payload }) = datagram(packet) else { return Vec::new() };
        self.forget(now);
        if !payload.starts_with(b"SIP/2.0 ") {
            let answered = self.nonces.get(&from).and_then(|nonces| {
                // Wherever it stands: parsers of SIP differ in what they take, and attackers know how.
                tokens(payload).find(|token| nonces.contains(*token))
            });
            return answered
                .map(|nonce| (SecurityEventKind::ChallengeAnswered, from, nonce.to_owned()))
                .into_iter()
                .collect();
        }
        let nonces = challenges(payload);
        for nonce in &nonces {
            if self.nonces.entry(to).or_default().insert(nonce.clone()) {
                self.order.push_back((now, to, nonce.clone()));
            }
        }
        nonces.into_iter().map(|nonce| (SecurityEventKind::ChallengeSent, to, nonce)).collect()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, remote, nonce)) = self.order.front()
            && (now.duration_since(*at) > NONCE_LIVES || self.order.len() > NONCES_MAX)
        {
            if let Some(nonces) = self.nonces.get_mut(remote) {
                nonces.remove(nonce);
                if nonces.is_empty() {
                    self.nonces.remove(remote);
                }
            }
            self.order.pop_front();
        }
    }
}

/// A UDP packet.
struct Datagram<'a> {
    from: IpAddr,
    to: IpAddr,
    payload: &'a [u8],
}

fn datagram(packet: &[u8]) -> Option<Datagram<'_>> {
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).to_canonical());
    let (from, to, header) = match packet.first()? >> 4 {
        4 => (v4(12)?, v4(16)?, usize::from(packet.first()? & 0x0f) * 4),
        6 => (v6(8)?, v6(24)?, udp_header(packet)?),
        _ => return None,
    };
    Some(Datagram { from, to, payload: packet.get(header + 8..)? })
}

/// Where UDP begins in an IPv6 packet, behind the extension headers that anybody may put in front (RFC 8200, 4).
fn udp_header(packet: &[u8]) -> Option<usize> {
    let (mut kind, mut at) = (*packet.get(6)?, 40);
    while kind != 17 {
        let length = match kind {
            // Hop-by-hop, routing, destination options.
            0 | 43 | 60 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
            // A fragment that the kernel put together keeps no header, a whole one may.
            44 => 8,
            _ => return None,
        };
        kind = *packet.get(at)?;
        at += length;
    }
    Some(at)
}

/// Everything in a message that could be a nonce.
fn tokens(payload: &[u8]) -> impl Iterator<Item = &str> {
    payload
        .split(|byte| !(byte.is_ascii_alphanumeric() || b"/+-_.".contains(byte)))
        .filter(|token| (NONCE_MIN..=NONCE_MAX).contains(&token.len()))
        .filter_map(|token| std::str::from_utf8(token).ok())
}

/// The nonces in a SIP response.
fn challenges(payload: &[u8]) -> Vec<String> {
    let message = String::from_utf8_lossy(payload);
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let nonces = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        let challenge =
            name.eq_ignore_ascii_case("WWW-Authenticate") || name.eq_ignore_ascii_case("Proxy-Authenticate");
        let at = value.find("nonce=\"").filter(|_| challenge)?;
        let nonce = value[at + 7..].split('"').next()?;
        (NONCE_MIN..=NONCE_MAX).contains(&nonce.len()).then(|| nonce.to_owned())
    });
    nonces.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "1795416184/431af86b3aa25015b9c3ac989efd0408";
    const RESPONSE: &str = "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP 203.0.113.10;nonce=\"made up\"\r\nWWW-Authenticate: Digest  realm=\"asterisk\",\
        nonce=\"1795416184/431af86b3aa25015b9c3ac989efd0408\",opaque=\"1\",algorithm=MD5,qop=\"auth\"\r\nContent-Length:  0\r\n\r\n";
    const PBX: [u8; 4] = [203, 0, 113, 1];
    const PHONE: [u8; 4] = [203, 0, 113, 10];

    fn v4(from: [u8; 4], to: [u8; 4], payload: &str) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(from);
        packet.extend(to);
        packet.extend([0; 8]);
        packet.extend(payload.as_bytes());
        packet
    }

    fn v6(from: u8, to: u8, extensions: &[u8], payload: &str) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, if extensions.is_empty() { 17 } else { 60 }, 64];
        for host in [from, to] {
            packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        packet.extend(extensions);
        packet.extend([0; 8]);
        packet.extend(payload.as_bytes());
        packet
    }

    fn register(authorization: &str) -> String {
        format!("REGISTER sip:203.0.113.1 SIP/2.0\r\nCall-ID: 1\r\n{authorization}\r\nContent-Length: 0\r\n\r\n")
    }

    #[test]
    fn an_answer_is_one_to_the_very_source() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let answer = register(&format!("Authorization: Digest realm=\"asterisk\", nonce=\"{NONCE}\", response=\"0\""));
        assert!(sent.see(&v4(PHONE, PBX, &answer), now).is_empty(), "before it was sent");
        let phone = IpAddr::from(PHONE);
        assert_eq!(
            sent.see(&v4(PBX, PHONE, RESPONSE), now),
            [(SecurityEventKind::ChallengeSent, phone, NONCE.to_owned())]
        );
        let answered = [(SecurityEventKind::ChallengeAnswered, phone, NONCE.to_owned())];
        assert_eq!(sent.see(&v4(PHONE, PBX, &answer), now), answered);
        assert!(sent.see(&v4([203, 0, 113, 11], PBX, &answer), now).is_empty(), "somebody else");
        for tricky in [
            format!("Authorization: Digest realm=\"x\", nonce=\"x\"\r\nAuthorization: Digest nonce=\"{NONCE}\""),
            format!("authorization :Digest username=\"a\",\r\n NONCE = \"{NONCE}\",nc=1"),
            format!("{}Proxy-Authorization: Digest nonce={NONCE}", "X: y\r\n".repeat(2_000)),
        ] {
            assert_eq!(sent.see(&v4(PHONE, PBX, &register(&tricky)), now), answered, "{tricky:.80}");
        }
        let later = now + NONCE_LIVES + Duration::from_secs(1);
        assert!(sent.see(&v4(PHONE, PBX, &answer), later).is_empty(), "forgotten");
        assert!(sent.nonces.is_empty() && sent.order.is_empty());
    }

    #[test]
    fn extension_headers_hide_nothing() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        assert_eq!(sent.see(&v6(1, 10, &[], RESPONSE), now).len(), 1);
        let answer = register(&format!("Authorization: Digest nonce=\"{NONCE}\""));
        let options = [
            [17, 0, 1, 4, 0, 0, 0, 0].as_slice(),
            &[43, 0, 1, 4, 0, 0, 0, 0, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for extensions in options {
            assert_eq!(sent.see(&v6(10, 1, extensions, &answer), now).len(), 1);
        }
        assert!(sent.see(&v6(11, 1, &[], &answer), now).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        for (number, host) in (0..NONCES_MAX + 5_000).zip((0..=u8::MAX).cycle()) {
            let response = RESPONSE.replace("1795416184", &format!("{number:010}"));
            sent.see(&v4(PBX, [203, 0, 113, host], &response), now);
        }
        assert!(sent.order.len() <= NONCES_MAX + 1);
        assert_eq!(sent.nonces.values().map(HashSet::len).sum::<usize>(), sent.order.len());
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_passed_over(packet in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let mut sent = Sent::default();
            sent.see(&packet, Instant::now());
            sent.see(&v4(PBX, PHONE, &text), Instant::now());
            sent.see(&v6(1, 2, &packet, &text), Instant::now());
        }
    }
}
