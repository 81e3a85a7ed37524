//! Copies of packets that the kernel hands out (NFLOG). Layouts: `linux/netfilter/nfnetlink_log.h`.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::netlink::{
    Attributes, FAMILY_UNSPEC, Messages, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, attribute, message, socket, word,
};
use super::{FirewallError, nftables};

const SUBSYS_ULOG: u16 = 4;
const PACKET: u16 = SUBSYS_ULOG << 8;
const CONFIG: u16 = (SUBSYS_ULOG << 8) + 1;
const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_QTHRESH: u16 = 5;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const PAYLOAD: u16 = 9;
/// Of each packet: all of it, since an attacker may put much in front of what matters.
const COPY_BYTES: u32 = 0xffff;
const GROUP: u16 = 5_060;

/// The rules that hand out copies of our SIP challenges over UDP ("SIP/2.0 401" or "SIP/2.0 407" at the beginning of what is sent), and of
/// what those who were challenged send to that port while the challenge lives: of each at most 200 a second, so that none drowns the
/// others, and whoever guesses faster than that is banned by what was seen. A table of its own: where the kernel can't log, blocking
/// must not suffer.
const RULES: &str = "\
add table inet ringfence_watch
delete table inet ringfence_watch
add table inet ringfence_watch
add set inet ringfence_watch ports { type inet_service; size 64; flags dynamic,timeout; timeout 1h; }
add set inet ringfence_watch challenged4 { type ipv4_addr; size 262144; flags dynamic,timeout; timeout 40s; }
add set inet ringfence_watch challenged6 { type ipv6_addr; size 262144; flags dynamic,timeout; timeout 40s; }
add set inet ringfence_watch rate4 { type ipv4_addr; size 262144; flags dynamic,timeout; timeout 10s; }
add set inet ringfence_watch rate6 { type ipv6_addr; size 262144; flags dynamic,timeout; timeout 10s; }
add chain inet ringfence_watch challenge
add rule inet ringfence_watch challenge update @ports { udp sport }
add rule inet ringfence_watch challenge update @challenged4 { ip daddr }
add rule inet ringfence_watch challenge update @challenged6 { ip6 daddr }
add rule inet ringfence_watch challenge log group 5060
add chain inet ringfence_watch challenges { type filter hook output priority 300; policy accept; }
add rule inet ringfence_watch challenges meta l4proto udp @th,64,88 0x5349502f322e3020343031 jump challenge
add rule inet ringfence_watch challenges meta l4proto udp @th,64,88 0x5349502f322e3020343037 jump challenge
add chain inet ringfence_watch answers { type filter hook input priority -200; policy accept; }
add rule inet ringfence_watch answers udp dport @ports ip saddr @challenged4 update @rate4 { ip saddr limit rate 200/second burst 50 packets } log group 5060
add rule inet ringfence_watch answers udp dport @ports ip6 saddr @challenged6 update @rate6 { ip6 saddr limit rate 200/second burst 50 packets } log group 5060
";
/// Room for a message with the largest packet.
const BUFFER: usize = 128 * 1024;

/// The challenges that this machine sends and what comes back, as IP packets.
#[derive(Debug)]
pub struct PacketLog {
    socket: OwnedFd,
}

impl PacketLog {
    /// Puts the rules in place (again).
    pub async fn load_rules() -> Result<(), FirewallError> {
        nftables::nft(RULES).await
    }

    /// Subscribes, in the network namespace of the calling thread.
    pub fn open() -> Result<Self, FirewallError> {
        let socket = socket(Duration::from_secs(2))?;
        // Room for a burst; more than the system allows is cut by the kernel.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 1 << 20);
        let mut request = Vec::with_capacity(64);
        message(&mut request, CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, FAMILY_UNSPEC, GROUP, |body| {
            attribute(body, CFG_CMD, |value| value.push(CMD_BIND));
            attribute(body, CFG_MODE, |value| {
                value.extend_from_slice(&COPY_BYTES.to_be_bytes());
                value.extend_from_slice(&[COPY_PACKET, 0]);
            });
            // Each packet at once: the answer to a challenge is a round trip behind it.
            attribute(body, CFG_QTHRESH, |value| value.extend_from_slice(&1u32.to_be_bytes()));
        });
        rustix::net::send(&socket, &request, SendFlags::empty()).map_err(FirewallError::Kernel)?;
        let log = Self { socket };
        let mut buffer = vec![0; 64 * 1024];
        let length = log.receive(&mut buffer)?;
        let answer =
            Messages(&buffer[..length]).find(|(kind, ..)| *kind == NLMSG_ERROR).and_then(|(.., body)| word(body));
        match answer.map(u32::cast_signed) {
            Some(0) => Ok(log),
            Some(code) => Err(FirewallError::Kernel(Errno::from_raw_os_error(-code))),
            None => Err(FirewallError::Protocol("no answer to the subscription")),
        }
    }

    /// Waits a moment for packets and hands each to `take`, from its IP header on.
    pub fn read(&self, buffer: &mut Vec<u8>, mut take: impl FnMut(&[u8])) -> Result<(), FirewallError> {
        buffer.resize(BUFFER, 0);
        let length = match self.receive(buffer) {
            // Nothing came; or more came than there was room for, and some are lost.
            Err(FirewallError::Kernel(Errno::AGAIN | Errno::INTR | Errno::NOBUFS)) => return Ok(()),
            other => other?,
        };
        Messages(&buffer[..length])
            .filter(|(kind, ..)| *kind == PACKET)
            .flat_map(|(.., body)| Attributes(body.get(4..).unwrap_or_default()))
            .filter(|(kind, _)| *kind == PAYLOAD)
            .for_each(|(_, packet)| take(packet));
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, FirewallError> {
        rustix::net::recv(&self.socket, buffer, RecvFlags::empty())
            .map(|(length, _)| length)
            .map_err(FirewallError::Kernel)
    }
}
