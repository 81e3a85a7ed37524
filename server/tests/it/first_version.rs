//! The server keeps its word to agents that are older than it. What such an agent said is played again, byte for byte, over real mutual
//! TLS, and what the server answers is read with the definitions of that agent's version: it must be what the agent answered to then.
//! `docs/ARCHITECTURE.md` says how a conversation is recorded.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use actions::clock::Clock as _;
use policy::authz::{Operation, Role};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use proto::pb;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::transport::Identity;

use crate::rpc::{LONGEST, Link, Portal};
use crate::support::{Person, TestServer};

/// The PBX of the recordings.
const PBX: &str = "hq";

/// A line of a recording.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// `! clock MS`: what the server's clock shows, in milliseconds since 1970.
    Clock(i128),
    /// `! allow TARGET`, `! block NET`, `! unblock NET`: what somebody does in the portal.
    Done(String, String),
    /// `> HEX`: the agent says a message. With hello it opens a stream.
    Agent(Vec<u8>),
    /// `< HEX`: the server says a message.
    Server(Vec<u8>),
}

impl Line {
    /// `None` for remarks.
    fn read(line: &str) -> Option<Self> {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        match *line.split_whitespace().collect::<Vec<_>>() {
            [] | ["#", ..] => None,
            ["!", "clock", ms] => Some(Self::Clock(ms.parse().unwrap())),
            ["!", what, whom] => Some(Self::Done(what.to_owned(), whom.to_owned())),
            [">", message] => Some(Self::Agent(hex(message))),
            ["<", message] => Some(Self::Server(hex(message))),
            _ => panic!("{line}"),
        }
    }
}

/// The messages of a version.
struct Definitions(DescriptorPool);

impl Definitions {
    fn of(folder: &Path) -> Self {
        let files = protox::compile([folder.join("agent.proto")], [folder]).unwrap();
        Self(DescriptorPool::decode(files.encode_to_vec().as_slice()).unwrap())
    }

    /// A message as that version reads it, in words; what it doesn't know is passed over.
    fn words(&self, name: &str, message: &[u8]) -> String {
        let descriptor = self.0.get_message_by_name(&format!("ringfence.agent.v1.{name}")).unwrap();
        DynamicMessage::decode(descriptor, message).unwrap().to_text_format()
    }

    fn agents(&self, message: &[u8]) -> String {
        self.words("AgentMessage", message)
    }

    fn servers(&self, message: &[u8]) -> String {
        self.words("ServerMessage", message)
    }
}

/// What a message is, such as `policy`; nothing for one of a kind that the version doesn't know.
fn kind(words: &str) -> &str {
    words.split(['{', ':']).next().unwrap_or_default()
}

/// Whether two messages say the same. The entries of a policy come in any order, for its digest, too.
fn same(a: &str, b: &str) -> bool {
    let parts = |words: &str| {
        let mut parts: Vec<String> = words.split(['[', ']', '{', '}', ',']).map(str::to_owned).collect();
        parts.sort_unstable();
        parts
    };
    a == b || (kind(a) == "policy" && parts(a) == parts(b))
}

/// The end of a stream where the agent is.
struct Played {
    link: Link,
    /// Came before it was its turn.
    early: VecDeque<String>,
}

impl Played {
    /// The next message of a kind, in words.
    async fn hear(&mut self, wanted: &str, definitions: &Definitions) -> String {
        if let Some(at) = self.early.iter().position(|words| kind(words) == wanted) {
            return self.early.remove(at).unwrap();
        }
        let heard = timeout(LONGEST, async {
            loop {
                let message = self.link.incoming.message().await.unwrap().expect("the stream goes on");
                let words = definitions.servers(&message.encode_to_vec());
                match kind(&words) {
                    of if of == wanted => return words,
                    "heartbeat" | "" => {}
                    _ => self.early.push_back(words),
                }
            }
        });
        heard.await.unwrap_or_else(|_| panic!("{wanted} comes in time; instead there were {:?}", self.early))
    }
}

/// Somebody who does what the recording says.
struct Somebody<'a> {
    server: &'a TestServer,
    person: Person,
}

impl Somebody<'_> {
    async fn acts(&self, what: &str, whom: &str) {
        let (operation, body) = match what {
            "allow" => {
                let form = json!({ "target": whom, "note": "", "expires_at": "" });
                (Operation::AddAllowedIp, json!({ "form": form, "insist": false }))
            }
            "block" => {
                let form = json!({ "net": whom, "duration": "permanent", "reason": "scanner" });
                (Operation::BlockIp, json!({ "form": form, "insist": false }))
            }
            "unblock" => {
                let filter = json!({ "search": whom, "source": null, "pbx_id": null });
                (Operation::UnblockMatching, json!({ "filter": filter }))
            }
            _ => panic!("{what}"),
        };
        let _: Value = self.server.done(&self.person, operation, body).await;
    }

    /// How the only PBX is.
    async fn pbx(&self) -> Value {
        let mut page: Value = self.server.done(&self.person, Operation::ListPbxes, json!({})).await;
        let rows = if page.is_array() { page } else { page["rows"].take() };
        rows[0].clone()
    }

    async fn bans(&self) -> Value {
        self.server.done(&self.person, Operation::ListBlockedIps, json!({ "filter": {}, "after": null })).await
    }

    /// Waits until the PBX is shown to have all that it should.
    async fn sees_it_current(&self) -> Value {
        let mut changes = self.server.ctx.bus().subscribe();
        loop {
            let pbx = self.pbx().await;
            let same = |a: &str, b: &str| pbx[a].is_number() && pbx[a] == pbx[b];
            let connected = pbx["agent_version"].as_str().is_some_and(|version| !version.is_empty());
            if connected && same("wanted_revision", "applied_revision") && same("wanted_ban_seq", "applied_ban_seq") {
                return pbx;
            }
            changes.recv().await.unwrap();
        }
    }
}

/// Plays a recording.
async fn play(folder: &Path) {
    let definitions = Definitions::of(folder);
    let text = std::fs::read_to_string(folder.join("conversation.txt")).unwrap();
    let portal = Portal::start().await;
    let agent = portal.enrolled(PBX).await;
    let mut somebody = Somebody { server: &portal.server, person: portal.admin.clone() };
    let mut played: Option<Played> = None;
    let mut reported = None;
    let mut detections = 0;
    for line in text.lines().filter_map(Line::read) {
        match line {
            Line::Clock(ms) => {
                let at = time::OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).unwrap();
                portal.server.clock.advance(at - portal.server.clock.now());
                // Sessions of another time may have ended.
                let person = portal.server.person(portal.tenant, Role::SuperAdministrator).await;
                somebody.person = person;
            }
            Line::Done(what, whom) => somebody.acts(&what, &whom).await,
            Line::Agent(said) => {
                let message = pb::AgentMessage::decode(said.as_slice()).unwrap();
                assert_eq!(message.encode_to_vec(), said, "nothing of what the agent says is lost on us");
                let words = definitions.agents(&said);
                match kind(&words) {
                    "hello" => played = Some(open(&portal, &agent.identity).await),
                    "report" => reported = Some(message.clone()),
                    _ => {}
                }
                detections += words.matches("detected{").count();
                played.as_ref().unwrap().link.out.send(message).await.unwrap();
            }
            Line::Server(said) => {
                let expected = definitions.servers(&said);
                if kind(&expected) != "heartbeat" {
                    let heard = played.as_mut().unwrap().hear(kind(&expected), &definitions).await;
                    assert!(same(&heard, &expected), "{heard}\ninstead of\n{expected}");
                }
            }
        }
    }
    let mut played = played.unwrap();
    assert_eq!(played.early, [""; 0], "the server says no more than it did");
    let pbx = timeout(LONGEST, somebody.sees_it_current()).await.expect("the PBX is shown as current");
    assert_eq!((pbx["agent_version"].as_str(), pbx["name"].as_str()), (Some("0.1.0"), Some(PBX)), "{pbx}");
    let bans = somebody.bans().await;
    let by_agent = bans["rows"].as_array().unwrap().iter().filter(|ban| ban["pbx_name"] == PBX).count();
    assert_eq!(by_agent, detections, "each ban that it reported is there once: {bans}");
    // Once more, as after a lost acknowledgement.
    let report = reported.expect("it reports bans");
    played.link.out.send(report).await.unwrap();
    played.hear("report_ack", &definitions).await;
    assert_eq!(somebody.bans().await, bans);
}

async fn open(portal: &Portal, identity: &Identity) -> Played {
    let link = portal.open(Some(identity.clone())).await.unwrap();
    Played { link, early: VecDeque::new() }
}

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

#[tokio::test]
async fn an_agent_of_the_first_version_works() {
    play(&recordings().join("first")).await;
}
