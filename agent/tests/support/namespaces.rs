//! Two network namespaces joined by a wire: a PBX that echoes UDP, and an attacker that can send from any address of the ranges for
//! documentation. Real packets, nobody else's network.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);
const PORT: u16 = 5060;

/// Whether namespaces can be made here; says so when they can't.
pub fn possible() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("SKIPPED: packets in network namespaces need root");
    }
    root
}

pub struct Namespaces {
    pub pbx: String,
    attacker: String,
}

impl Namespaces {
    pub fn new() -> Self {
        let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = Self { pbx: format!("rft-{unique}-p"), attacker: format!("rft-{unique}-a") };
        let Self { pbx, attacker } = &made;
        ip(&format!("netns add {pbx}"));
        ip(&format!("netns add {attacker}"));
        for namespace in [pbx, attacker] {
            // No waiting for duplicates of addresses.
            for which in ["all", "default"] {
                within(namespace, || {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").unwrap();
                });
            }
        }
        ip(&format!("-n {pbx} link add wire type veth peer name wire netns {attacker}"));
        for (namespace, own) in [(pbx, 1), (attacker, 2)] {
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} addr add 10.9.0.{own}/30 dev wire"));
            ip(&format!("-n {namespace} addr add fd00:9::{own}/64 dev wire nodad"));
            ip(&format!("-n {namespace} link set wire up"));
        }
        // Both ends are up: IPv6 routes need a carrier.
        for (namespace, own, other) in [(pbx, 1, 2), (attacker, 2, 1)] {
            // Whole networks: local to the attacker, behind it for the PBX.
            for net in ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"] {
                let gateway = if net.contains(':') { format!("fd00:9::{other}") } else { format!("10.9.0.{other}") };
                let route = if own == 1 {
                    format!("route add {net} via {gateway}")
                } else {
                    format!("route add local {net} dev lo")
                };
                ip(&format!("-n {namespace} {route}"));
            }
        }
        // IPv6 needs to be told that a socket may use any address of a local network.
        within(attacker, || std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap());
        for address in ["10.9.0.1", "fd00:9::1"] {
            let socket = within(pbx, || UdpSocket::bind((address, PORT)).unwrap());
            // Ends with the test's process.
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            });
        }
        // The first packets wait for neighbours to find each other.
        for source in ["203.0.113.254", "2001:db8::ffff"] {
            let flow = made.flow(source);
            assert!((0..20).any(|_| flow.works()), "no way from {source} to the PBX");
        }
        made
    }

    /// Runs in the PBX's namespace, in a thread of its own.
    pub fn on_pbx<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.pbx, work)
    }

    /// Runs in the other namespace, in a thread of its own.
    pub fn on_attacker<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.attacker, work)
    }

    /// A flow from `source`.
    pub fn flow(&self, source: &str) -> Flow {
        let source: IpAddr = source.parse().unwrap();
        let server = if source.is_ipv4() { "10.9.0.1" } else { "fd00:9::1" };
        let socket = within(&self.attacker, || UdpSocket::bind(SocketAddr::new(source, 0)).unwrap());
        socket.connect((server, PORT)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Flow { source, socket }
    }

    /// Sends one datagram from `source` to a port of the PBX.
    pub fn send(&self, source: &str, port: u16, payload: &[u8]) {
        let source: IpAddr = source.parse().unwrap();
        let pbx = if source.is_ipv4() { "10.9.0.1" } else { "fd00:9::1" };
        let socket = within(&self.attacker, || UdpSocket::bind(SocketAddr::new(source, 0)).unwrap());
        socket.send_to(payload, (pbx, port)).unwrap();
    }

    /// Which of these sources get an answer. Waits for all of `expected`, and a moment more for those that should get none.
    pub fn answered(&self, sources: &BTreeSet<IpAddr>, expected: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let flows: Vec<Flow> = sources.iter().map(|source| self.flow(&source.to_string())).collect();
        flows.iter().for_each(Flow::send);
        let mut answered = BTreeSet::new();
        for wait in 0..100 {
            std::thread::sleep(Duration::from_millis(20));
            answered.extend(flows.iter().filter(|flow| flow.received()).map(|flow| flow.source));
            if wait > 0 && answered.is_superset(expected) {
                break;
            }
        }
        answered
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.pbx));
        ip(&format!("netns del {}", self.attacker));
    }
}

pub struct Flow {
    source: IpAddr,
    socket: UdpSocket,
}

impl Flow {
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Whether a packet is answered.
    pub fn works(&self) -> bool {
        while self.received() {}
        self.send();
        (0..15).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            self.received()
        })
    }

    fn send(&self) {
        self.socket.send(b"hello").unwrap();
    }

    fn received(&self) -> bool {
        self.socket.recv(&mut [0; 64]).is_ok()
    }
}

/// Moves the calling thread.
pub fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            work()
        });
        thread.join().unwrap()
    })
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Runs a command in the namespace of the calling thread; what it printed.
#[expect(clippy::disallowed_methods, reason = "tests set up namespaces")]
pub fn run(command: &str, arguments: &str) -> String {
    let output = std::process::Command::new(command).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{command} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
