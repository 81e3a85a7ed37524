//! Single elements of nftables sets, written and read over nfnetlink without a process: `nft` lists every interval set
//! of the machine before it adds one address. Layouts: `linux/netlink.h`,
//! `linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use policy::ruleset;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::FirewallError;
use super::render::TABLE_NAME;

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYS_NFTABLES: u16 = 10;
const NEWSET: u16 = (SUBSYS_NFTABLES << 8) + 9;
const GETSET: u16 = (SUBSYS_NFTABLES << 8) + 10;
const NEWSETELEM: u16 = (SUBSYS_NFTABLES << 8) + 12;
const GETSETELEM: u16 = (SUBSYS_NFTABLES << 8) + 13;
const DELSETELEM: u16 = (SUBSYS_NFTABLES << 8) + 14;
pub(super) const FAMILY_UNSPEC: u8 = 0;
const FAMILY_INET: u8 = 1;
const NESTED: u16 = 0x8000;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const ELEM_FLAGS: u16 = 3;
const ELEM_TIMEOUT: u16 = 4;
const DATA_VALUE: u16 = 1;
const INTERVAL_END: u32 = 1;
const HEADER: usize = 16;
/// Fits into the socket's default send buffer.
const BATCH_MAX: usize = 128 * 1024;

/// One change of one set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) set: &'static str,
    pub(super) key: IpAddr,
    /// The element ends an interval: its key is the first address after it.
    pub(super) end: bool,
    pub(super) action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Adds it; refused when it is there.
    Add { timeout_ms: Option<u64> },
    /// Deletes it; refused when it isn't there.
    Delete,
}

/// A connection to the kernel's nftables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, FirewallError> {
        // The kernel answers before the call that sends returns; the limit only keeps a surprise from becoming a hang.
        let socket = socket(Duration::from_secs(2))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes all changes in one transaction, or none. The error is the kernel's about the first change that it refused.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), FirewallError> {
        let first = self.sequence.wrapping_add(1);
        let mut batch = Vec::with_capacity(64 + changes.len() * 128);
        self.message(&mut batch, BATCH_BEGIN, NLM_F_REQUEST, FAMILY_UNSPEC, SUBSYS_NFTABLES, |_| {});
        for change in changes {
            let (kind, flags) = match change.action {
                Action::Add { .. } => (NEWSETELEM, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL),
                Action::Delete => (DELSETELEM, NLM_F_REQUEST | NLM_F_ACK),
            };
            self.message(&mut batch, kind, flags, FAMILY_INET, 0, |body| element(body, change));
        }
        self.message(&mut batch, BATCH_END, NLM_F_REQUEST, FAMILY_UNSPEC, SUBSYS_NFTABLES, |_| {});
        if batch.len() > BATCH_MAX {
            return Err(FirewallError::Protocol("too many changes for one batch"));
        }
        rustix::net::send(&self.socket, &batch, SendFlags::empty()).map_err(FirewallError::Kernel)?;
        self.answers(first, changes.len())
    }

    /// Reads until each change is answered, or the batch as a whole is refused.
    fn answers(&mut self, first: u32, count: usize) -> Result<(), FirewallError> {
        let mut refused = None;
        let mut answered = 0;
        while answered < count {
            let datagram = self.receive()?;
            for (kind, sequence, body) in Messages(&datagram) {
                // What is left from an exchange that was given up.
                let mine = sequence.wrapping_sub(first) <= u32::try_from(count).unwrap_or(u32::MAX);
                if kind != NLMSG_ERROR || !mine {
                    continue;
                }
                let code = word(body).ok_or(FirewallError::Protocol("short answer"))?.cast_signed();
                if code != 0 {
                    refused = refused.or(Some(Errno::from_raw_os_error(-code)));
                }
                if sequence == first {
                    // About the batch itself: no answer to a single change will come.
                    return refused.map_or(Ok(()), |errno| Err(FirewallError::Kernel(errno)));
                }
                answered += 1;
            }
        }
        refused.map_or(Ok(()), |errno| Err(FirewallError::Kernel(errno)))
    }

    /// Whether a set is there. Doesn't look at its elements.
    pub(super) fn has_set(&mut self, set: &'static str) -> Result<bool, FirewallError> {
        let mut request = Vec::with_capacity(64);
        self.message(&mut request, GETSET, NLM_F_REQUEST, FAMILY_INET, 0, |body| {
            string(body, LIST_TABLE, TABLE_NAME);
            string(body, LIST_SET, set);
        });
        let asked = self.sequence;
        rustix::net::send(&self.socket, &request, SendFlags::empty()).map_err(FirewallError::Kernel)?;
        loop {
            let datagram = self.receive()?;
            for (kind, _, body) in Messages(&datagram).filter(|(_, sequence, _)| *sequence == asked) {
                match (kind, word(body).map(u32::cast_signed)) {
                    (NEWSET, _) => return Ok(true),
                    (NLMSG_ERROR, Some(code)) => {
                        return match Errno::from_raw_os_error(-code) {
                            Errno::NOENT => Ok(false),
                            other => Err(FirewallError::Kernel(other)),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// How many elements a set holds; of an interval set, how many intervals.
    pub(super) fn count(&mut self, set: &'static str) -> Result<usize, FirewallError> {
        let mut count = 0;
        self.elements(set, |_, end| count += usize::from(!end))?;
        Ok(count)
    }

    /// The ranges of an interval set, sorted, first and last address of each.
    pub(super) fn ranges(&mut self, set: &'static str) -> Result<Vec<(IpAddr, IpAddr)>, FirewallError> {
        let mut bounds = Vec::new();
        self.elements(set, |key, end| bounds.extend(key.map(|key| (key, end))))?;
        // An end comes before a beginning at the same address: it is the first address behind its interval.
        bounds.sort_unstable_by_key(|(key, end)| (*key, !end));
        let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
        let mut open = None;
        for (key, end) in bounds {
            if end {
                let before = ruleset::previous(key);
                ranges.extend(Option::take(&mut open).zip(before));
            } else {
                open = Some(key);
            }
        }
        // One that reaches the last address of all has no end.
        ranges.extend(open.map(|first| (first, last_of_all(first))));
        Ok(ranges)
    }

    /// Goes through the elements of a set: the key, and whether it ends an interval.
    fn elements(
        &mut self,
        set: &'static str,
        mut visit: impl FnMut(Option<IpAddr>, bool),
    ) -> Result<(), FirewallError> {
        let mut request = Vec::with_capacity(64);
        self.message(&mut request, GETSETELEM, NLM_F_REQUEST | NLM_F_DUMP, FAMILY_INET, 0, |body| {
            string(body, LIST_TABLE, TABLE_NAME);
            string(body, LIST_SET, set);
        });
        let asked = self.sequence;
        rustix::net::send(&self.socket, &request, SendFlags::empty()).map_err(FirewallError::Kernel)?;
        loop {
            let datagram = self.receive()?;
            for (kind, _, body) in Messages(&datagram).filter(|(_, sequence, _)| *sequence == asked) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = word(body).ok_or(FirewallError::Protocol("short answer"))?.cast_signed();
                        return Err(FirewallError::Kernel(Errno::from_raw_os_error(-code)));
                    }
                    NEWSETELEM => list(body.get(4..).unwrap_or_default()).for_each(|element| {
                        visit(key(element), ends(element));
                    }),
                    _ => {}
                }
            }
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, FirewallError> {
        let mut buffer = vec![0u8; 64 * 1024];
        let (length, _) =
            rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()).map_err(FirewallError::Kernel)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn message(
        &mut self,
        out: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        message(out, kind, flags, self.sequence, family, resource, body);
    }
}

/// One message: netlink's header, nfnetlink's, and the body.
pub(super) fn message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    body(out);
    let length = u32::try_from(out.len() - start).expect("a message is smaller than a batch");
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// A socket to netfilter that waits at most `patience` for each answer.
pub(super) fn socket(patience: Duration) -> Result<OwnedFd, FirewallError> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))
            .map_err(FirewallError::Kernel)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(FirewallError::Kernel)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience)).map_err(FirewallError::Kernel)?;
    Ok(socket)
}

fn element(body: &mut Vec<u8>, change: &Change) {
    string(body, LIST_TABLE, TABLE_NAME);
    string(body, LIST_SET, change.set);
    attribute(body, LIST_ELEMENTS | NESTED, |list| {
        attribute(list, LIST_ELEM | NESTED, |element| {
            attribute(element, ELEM_KEY | NESTED, |key| {
                attribute(key, DATA_VALUE, |value| match change.key {
                    IpAddr::V4(addr) => value.extend_from_slice(&addr.octets()),
                    IpAddr::V6(addr) => value.extend_from_slice(&addr.octets()),
                });
            });
            if change.end {
                attribute(element, ELEM_FLAGS, |flags| flags.extend_from_slice(&INTERVAL_END.to_be_bytes()));
            }
            if let Action::Add { timeout_ms: Some(ms) } = change.action {
                attribute(element, ELEM_TIMEOUT, |timeout| timeout.extend_from_slice(&ms.to_be_bytes()));
            }
        });
    });
}

fn string(out: &mut Vec<u8>, kind: u16, text: &str) {
    attribute(out, kind, |value| {
        value.extend_from_slice(text.as_bytes());
        value.push(0);
    });
}

/// One attribute, padded to four bytes.
pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    value(out);
    let length = u16::try_from(out.len() - start).expect("an attribute of ours is small");
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The messages of a datagram: type, sequence number, what follows the header.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(word(self.0)?).ok()?;
        let message = self.0.get(..length).filter(|message| message.len() >= HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        Some((kind, word(&message[8..])?, &message[HEADER..]))
    }
}

/// The attributes of a message or of a nested attribute: type without flags, value.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d, ..] = self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([*c, *d]) & 0x3fff, value))
    }
}

/// The elements of a message.
fn list(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    Attributes(body)
        .filter(|(kind, _)| *kind == LIST_ELEMENTS)
        .flat_map(|(_, list)| Attributes(list))
        .filter(|(kind, _)| *kind == LIST_ELEM)
        .map(|(_, element)| element)
}

/// Whether an element ends an interval.
fn ends(element: &[u8]) -> bool {
    Attributes(element).any(|(kind, value)| {
        kind == ELEM_FLAGS && value.try_into().is_ok_and(|bytes| u32::from_be_bytes(bytes) & INTERVAL_END != 0)
    })
}

fn key(element: &[u8]) -> Option<IpAddr> {
    let (_, key) = Attributes(element).find(|(kind, _)| *kind == ELEM_KEY)?;
    let (_, value) = Attributes(key).find(|(kind, _)| *kind == DATA_VALUE)?;
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn last_of_all(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}

pub(super) fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
