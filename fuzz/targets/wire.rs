//! Bytes from the other end of the wire, both ways: nothing panics, and what was accepted goes out and comes in again as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{convert, pb};
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = convert::agent_message(bytes) {
        let again = pb::AgentMessage::from(&message).encode_to_vec();
        assert_eq!(convert::agent_message(&again).as_ref(), Ok(&message), "what an agent says survives the wire");
    }
    if let Ok(message) = convert::server_message(bytes) {
        let again = pb::ServerMessage::from(&message).encode_to_vec();
        assert_eq!(convert::server_message(&again).as_ref(), Ok(&message), "what the server says survives the wire");
    }
    if let Ok(request) = pb::EnrolRequest::decode(bytes) {
        let _ = convert::Enrolment::try_from(request);
    }
});
