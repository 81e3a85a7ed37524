//! Network namespaces joined by wires: a PBX that echoes UDP, an attacker that can send from any address of the ranges for
//! documentation, and, where it is wanted, a portal. Real packets, nobody else's network.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);
const PORT: u16 = 5060;
const PBX: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
/// Where the portal is, as the PBX reaches it.
pub const PORTAL: &str = "10.8.0.2";

/// Whether namespaces can be made here; says so when they can't.
pub fn possible() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("SKIPPED: packets in network namespaces need root");
    }
    root
}

/// The machines. Dropped, they are gone.
pub struct Namespaces {
    /// The PBX's namespace, for `ip netns`.
    pub pbx: String,
    attacker: String,
    portal: Option<String>,
    echoes: Vec<Echo>,
}

impl Namespaces {
    /// A PBX and an attacker.
    #[expect(clippy::new_without_default, reason = "it changes the machine")]
    pub fn new() -> Self {
        Self::make(false)
    }

    /// A PBX, an attacker, and a portal that only the PBX reaches, over a wire of its own.
    pub fn with_portal() -> Self {
        Self::make(true)
    }

    fn make(with_portal: bool) -> Self {
        let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = |end: &str| format!("rft-{unique}-{end}");
        let mut made =
            Self { pbx: name("p"), attacker: name("a"), portal: with_portal.then(|| name("s")), echoes: vec![] };
        for namespace in [Some(&made.attacker), made.portal.as_ref()].into_iter().flatten() {
            add(namespace);
        }
        // IPv6 needs to be told that a socket may use any address of a local network.
        within(&made.attacker, || std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap());
        made.add_pbx();
        made
    }

    fn add_pbx(&mut self) {
        let Self { pbx, attacker, portal, .. } = &*self;
        add(pbx);
        ip(&format!("-n {pbx} link add wire type veth peer name wire netns {attacker}"));
        for (namespace, own) in [(pbx, 1), (attacker, 2)] {
            ip(&format!("-n {namespace} addr add 10.9.0.{own}/30 dev wire"));
            ip(&format!("-n {namespace} addr add fd00:9::{own}/64 dev wire nodad"));
            ip(&format!("-n {namespace} link set wire up"));
        }
        // Both ends are up: IPv6 routes need a carrier. Whole networks: local to the attacker, behind it for the PBX.
        for net in ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"] {
            let gateway = if net.contains(':') { "fd00:9::2" } else { "10.9.0.2" };
            ip(&format!("-n {pbx} route add {net} via {gateway}"));
            ip(&format!("-n {attacker} route replace local {net} dev lo"));
        }
        if let Some(portal) = portal {
            ip(&format!("-n {pbx} link add uplink type veth peer name uplink netns {portal}"));
            for (namespace, own) in [(pbx, "10.8.0.1"), (portal, PORTAL)] {
                ip(&format!("-n {namespace} addr add {own}/30 dev uplink"));
                ip(&format!("-n {namespace} link set uplink up"));
            }
        }
        self.echoes = PBX.iter().map(|address| Echo::start(pbx, address)).collect();
        // The first packets wait for neighbours to find each other.
        for source in ["203.0.113.254", "2001:db8::ffff"] {
            let flow = self.flow(source);
            assert!((0..20).any(|_| flow.works()), "no way from {source} to the PBX");
        }
    }

    /// The PBX's machine is switched off and on: its namespace, with all that its kernel knew, is gone, and a new one is in its place.
    pub fn reboot_pbx(&mut self) {
        self.echoes.clear();
        // Ends of both wires; a deleted namespace takes its time.
        ip(&format!("-n {} link del wire", self.attacker));
        if let Some(portal) = &self.portal {
            ip(&format!("-n {portal} link del uplink"));
        }
        ip(&format!("netns del {}", self.pbx));
        self.add_pbx();
    }

    /// Cuts the wire between PBX and portal, or joins it again.
    pub fn set_uplink(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&format!("-n {} link set uplink {state}", self.pbx));
    }

    /// Runs in the PBX's namespace, in a thread of its own.
    pub fn on_pbx<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.pbx, work)
    }

    /// Runs in the attacker's namespace, in a thread of its own.
    pub fn on_attacker<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.attacker, work)
    }

    /// Runs in the portal's namespace, in a thread of its own.
    pub fn on_portal<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(self.portal.as_ref().unwrap(), work)
    }

    /// A flow from `source`.
    pub fn flow(&self, source: &str) -> Flow {
        let source: IpAddr = source.parse().unwrap();
        let server = if source.is_ipv4() { PBX[0] } else { PBX[1] };
        let socket = within(&self.attacker, || UdpSocket::bind(SocketAddr::new(source, 0)).unwrap());
        socket.connect((server, PORT)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Flow { source, socket }
    }

    /// Sends one datagram from `source` to a port of the PBX.
    pub fn send(&self, source: &str, port: u16, payload: &[u8]) {
        let source: IpAddr = source.parse().unwrap();
        let pbx = if source.is_ipv4() { PBX[0] } else { PBX[1] };
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
        self.echoes.clear();
        for namespace in [Some(&self.pbx), Some(&self.attacker), self.portal.as_ref()].into_iter().flatten() {
            ip(&format!("netns del {namespace}"));
        }
    }
}

/// A socket of the PBX that answers what it gets. It keeps its namespace alive, so it ends before it.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(namespace: &str, address: &str) -> Self {
        let socket = within(namespace, || UdpSocket::bind((address, PORT)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Packets from one source to the PBX and back.
pub struct Flow {
    source: IpAddr,
    socket: UdpSocket,
}

impl Flow {
    /// The source.
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

    pub(crate) fn into_socket(self) -> UdpSocket {
        self.socket
    }
}

fn add(namespace: &str) {
    ip(&format!("netns add {namespace}"));
    for which in ["all", "default"] {
        // No waiting for duplicates of addresses.
        within(namespace, || {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").unwrap();
        });
    }
    ip(&format!("-n {namespace} link set lo up"));
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
