//! Which challenges the PBX sent to whom, read off the packets that leave the machine. Only an answer to such a challenge proves that a
//! source of UDP packets is where it says: Asterisk 22 reports `ChallengeSent` with an empty challenge, and takes no more notice of a made-up one
//! than of a wrong password.

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
/// Longest nonce kept; Asterisk's have 43 characters.
const NONCE_MAX: usize = 64;

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
    while !events.is_closed() {
        let read = log.read(&mut buffer, |packet| {
            let Some((remote, nonces)) = challenges(packet) else { return };
            for nonce in nonces {
                let event = PbxEvent::Security(sent(remote, nonce, clock), Instant::now());
                // Full when the engine is drowning in events; a challenge less then makes a failure unproven, no more.
                let _ = events.try_send(event);
            }
        });
        if let Err(refused) = read {
            error!(error = %refused, "Challenges can't be watched any more: failures over UDP stay unproven and ban nobody");
            return;
        }
    }
}

fn sent(remote: IpAddr, nonce: String, clock: &SharedClock) -> SecurityEvent {
    SecurityEvent {
        at: Arc::clone(clock).now(),
        kind: SecurityEventKind::ChallengeSent,
        account: String::new(),
        session: String::new(),
        remote,
        transport: "UDP".to_owned(),
        service: String::new(),
        challenge: Some(nonce),
    }
}

/// To whom an IP packet with a SIP response goes, and the nonces in it.
pub fn challenges(packet: &[u8]) -> Option<(IpAddr, Vec<String>)> {
    let (remote, header) = match packet.first()? >> 4 {
        4 => (IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?), usize::from(packet.first()? & 0x0f) * 4),
        // What we send has no extension headers.
        6 if packet.get(6) == Some(&17) => (IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?), 40),
        _ => return None,
    };
    let message = String::from_utf8_lossy(packet.get(header + 8..)?);
    let head = message.split("\r\n\r\n").next()?;
    let nonces = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        let challenge =
            name.eq_ignore_ascii_case("WWW-Authenticate") || name.eq_ignore_ascii_case("Proxy-Authenticate");
        let at = value.find("nonce=\"").filter(|_| challenge)?;
        let nonce = value[at + 7..].split('"').next()?;
        (!nonce.is_empty() && nonce.len() <= NONCE_MAX).then(|| nonce.to_owned())
    });
    Some((remote.to_canonical(), nonces.collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESPONSE: &str = "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP 203.0.113.10;nonce=\"x\"\r\nWWW-Authenticate: Digest  realm=\"asterisk\",\
        nonce=\"1795416184/431af86b3aa25015b9c3ac989efd0408\",opaque=\"1\",algorithm=MD5,qop=\"auth\"\r\nContent-Length:  0\r\n\r\n";

    fn v4(to: [u8; 4], payload: &str) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 203, 0, 113, 1];
        packet.extend(to);
        packet.extend([0; 8]);
        packet.extend(payload.as_bytes());
        packet
    }

    #[test]
    fn reads_nonces() {
        let (remote, nonces) = challenges(&v4([203, 0, 113, 10], RESPONSE)).unwrap();
        assert_eq!(remote, IpAddr::from([203, 0, 113, 10]));
        assert_eq!(nonces, ["1795416184/431af86b3aa25015b9c3ac989efd0408"]);
        assert_eq!(
            challenges(&v4([203, 0, 113, 10], "SIP/2.0 401 Unauthorized\r\n\r\n")).unwrap().1,
            Vec::<String>::new()
        );
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_passed_over(packet in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let _ = challenges(&packet);
            let _ = challenges(&v4([203, 0, 113, 10], &text));
        }
    }
}
