//! The manager port of an Asterisk whose phones are there and whose attackers come when they are told to.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use agent::clock::{Clock as _, SystemClock};
use testbed::namespaces::Namespaces;

use time::Duration;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::programs::eventually;

/// Failures that make a ban.
const FAILURES: usize = 5;
const EVENT_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]+0000");

/// The manager port of the PBX, for as long as its namespace is the same.
pub struct Asterisk {
    sessions: Arc<Mutex<Vec<TcpStream>>>,
    ahead: Duration,
}

impl Asterisk {
    /// Listens where the agent looks for it; so many phones are registered.
    pub fn start(namespaces: &Namespaces, phones: usize) -> Self {
        let listener = namespaces.on_pbx(|| TcpListener::bind(("127.0.0.1", 5038)).unwrap());
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let logged_in = Arc::clone(&sessions);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, logged_in) = (stream.unwrap(), Arc::clone(&logged_in));
                std::thread::spawn(move || serve(stream, phones, &logged_in));
            }
        });
        Self { sessions, ahead: Duration::ZERO }
    }

    /// From now on the PBX's clock is so far ahead of the right time.
    pub fn set_clock(&mut self, ahead: Duration) {
        self.ahead = ahead;
    }

    /// Five wrong passwords over TCP, which prove where they come from. Waits for an agent that listens.
    pub fn attack(&self, source: &str) {
        let family = if source.contains(':') { "IPV6" } else { "IPV4" };
        let at = (SystemClock.now() + self.ahead).format(EVENT_TIME).unwrap();
        let mut events = String::new();
        for number in 0..FAILURES {
            let _ = write!(
                events,
                "Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\nEventTV: {at}\r\nSeverity: Error\r\nService: PJSIP\r\nEventVersion: 1\r\n\
                 AccountID: 1007\r\nSessionID: {source}-{number}\r\nLocalAddress: {family}/TCP/{source}/5060\r\n\
                 RemoteAddress: {family}/TCP/{source}/40000\r\nChallenge: 1/2\r\nResponse: 3\r\nExpectedResponse: \r\n\r\n"
            );
        }
        eventually("an agent listens to Asterisk", 20, || {
            let mut sessions = self.sessions.lock().unwrap();
            sessions.retain_mut(|session| session.write_all(events.as_bytes()).is_ok());
            !sessions.is_empty()
        });
    }
}

/// Serves one agent until it goes.
fn serve(stream: TcpStream, phones: usize, sessions: &Mutex<Vec<TcpStream>>) {
    let _ = answer(&stream, phones, sessions);
    let peer = stream.peer_addr().ok();
    sessions.lock().unwrap().retain(|session| session.peer_addr().ok() != peer && session.peer_addr().is_ok());
}

fn answer(stream: &TcpStream, phones: usize, sessions: &Mutex<Vec<TcpStream>>) -> Option<()> {
    stream.set_write_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let mut out = stream.try_clone().unwrap();
    out.write_all(b"Asterisk Call Manager/11.0.0\r\n").ok()?;
    let (mut action, mut id) = (String::new(), String::new());
    for line in BufReader::new(stream).lines() {
        let line = line.ok()?;
        if let Some((name, value)) = line.split_once(": ") {
            match name {
                "Action" => value.clone_into(&mut action),
                "ActionID" => value.clone_into(&mut id),
                _ => {}
            }
            continue;
        }
        let answer = match action.as_str() {
            "Challenge" => format!("Response: Success\r\nActionID: {id}\r\nChallenge: 123456789\r\n\r\n"),
            "CoreSettings" => format!("Response: Success\r\nActionID: {id}\r\nAsteriskVersion: 22.0.0\r\n\r\n"),
            "PJSIPShowRegistrationInboundContactStatuses" => contacts(&id, phones),
            _ => format!("Response: Success\r\nActionID: {id}\r\nMessage: Authentication accepted\r\n\r\n"),
        };
        out.write_all(answer.as_bytes()).ok()?;
        if action == "CoreSettings" {
            // The last thing that is asked before events matter.
            sessions.lock().unwrap().push(stream.try_clone().unwrap());
        }
    }
    Some(())
}

fn contacts(id: &str, phones: usize) -> String {
    let mut text = format!("Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n");
    for phone in 0..phones {
        let _ = write!(
            text,
            "Event: ContactStatusDetail\r\nActionID: {id}\r\nAOR: 10{phone}\r\nURI: sip:10{phone}@203.0.113.200:{}\r\nStatus: Reachable\r\n\r\n",
            5060 + phone
        );
    }
    let _ = write!(text, "Event: ContactStatusDetailComplete\r\nActionID: {id}\r\nEventList: Complete\r\n\r\n");
    text
}
