//! Who connects through a load balancer: the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Read only from peers that are load balancers of ours; from them it must
//! come, since otherwise whoever connects could say it himself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const LINE: usize = 107;
/// What version 2 may bring: two addresses of 108 bytes, and what else balancers tell.
const BODY: usize = 2048;

/// Reads the header and nothing after it. `None` when the load balancer speaks for itself, as it does to see whether we are there.
pub(super) async fn client(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; SIGNATURE_1.len()];
    stream.read_exact(&mut head).await?;
    if head == SIGNATURE_1 { version_1(stream).await } else { version_2(stream, head).await }
}

async fn version_1(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::with_capacity(LINE);
    while !line.ends_with(b"\r\n") {
        if line.len() + SIGNATURE_1.len() >= LINE {
            return Err(broken());
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| broken())?;
    let mut words = line.trim_end().split(' ');
    if words.next() == Some("UNKNOWN") {
        return Ok(None);
    }
    let source: IpAddr = words.next().and_then(|word| word.parse().ok()).ok_or_else(broken)?;
    let port: u16 = words.nth(1).and_then(|word| word.parse().ok()).ok_or_else(broken)?;
    Ok(Some(SocketAddr::new(source, port)))
}

async fn version_2(
    stream: &mut (impl AsyncRead + Unpin),
    begun: [u8; SIGNATURE_1.len()],
) -> io::Result<Option<SocketAddr>> {
    let mut rest = [0; SIGNATURE_2.len() - SIGNATURE_1.len()];
    stream.read_exact(&mut rest).await?;
    if [&begun[..], &rest[..]].concat() != SIGNATURE_2 {
        return Err(broken());
    }
    let (command, family, length) = (stream.read_u8().await?, stream.read_u8().await?, stream.read_u16().await?);
    if usize::from(length) > BODY {
        return Err(broken());
    }
    let mut body = vec![0; length.into()];
    stream.read_exact(&mut body).await?;
    let address = match (command, family) {
        (0x20, _) | (0x21, 0x00) => return Ok(None),
        (0x21, 0x11) => source::<4>(&body, 8).map(|(bytes, port)| (Ipv4Addr::from(bytes).into(), port)),
        (0x21, 0x21) => source::<16>(&body, 32).map(|(bytes, port)| (Ipv6Addr::from(bytes).into(), port)),
        _ => None,
    };
    address.map(|(ip, port): (IpAddr, u16)| Some(SocketAddr::new(ip, port))).ok_or_else(broken)
}

/// The first address of a body, and its port behind both addresses.
fn source<const BYTES: usize>(body: &[u8], port_at: usize) -> Option<([u8; BYTES], u16)> {
    let address = body.first_chunk::<BYTES>()?;
    let port = body.get(port_at..)?.first_chunk::<2>()?;
    Some((*address, u16::from_be_bytes(*port)))
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address, and what is left behind the header.
    async fn read(bytes: &[u8]) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
        let mut stream = bytes;
        let address = client(&mut stream).await?;
        Ok((address, stream.to_vec()))
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE_2, &[command, family], &length, body, b"\x16hello"].concat()
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_it_sent() {
        let left = b"\x16hello".to_vec();
        let line = |text: &str| format!("PROXY {text}\r\n\u{16}hello").into_bytes();
        let v4 = Some("203.0.113.9:50000".parse().unwrap());
        let v6 = Some("[2001:db8::9]:50000".parse().unwrap());
        let told = read(&line("TCP4 203.0.113.9 192.0.2.1 50000 3443")).await.unwrap();
        assert_eq!(told, (v4, left.clone()));
        let told = read(&line("TCP6 2001:db8::9 2001:db8::1 50000 3443")).await.unwrap();
        assert_eq!(told, (v6, left.clone()));
        assert_eq!(read(&line("UNKNOWN")).await.unwrap(), (None, left.clone()));

        let mut body = vec![203, 0, 113, 9, 192, 0, 2, 1, 0xc3, 0x50, 0x0d, 0x73];
        assert_eq!(read(&version_2(0x21, 0x11, &body)).await.unwrap(), (v4, left.clone()));
        body.extend([3, 0, 4, 1, 2, 3, 4]);
        assert_eq!(read(&version_2(0x21, 0x11, &body)).await.unwrap(), (v4, left.clone()), "with more behind it");
        let long =
            [&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 16], &[0xc3, 0x50, 0x0d, 0x73]].concat();
        assert_eq!(read(&version_2(0x21, 0x21, &long)).await.unwrap(), (v6, left.clone()));
        assert_eq!(read(&version_2(0x20, 0x00, &[])).await.unwrap(), (None, left), "its own look");
    }

    #[tokio::test]
    async fn what_is_none_is_refused() {
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 1 << 16]].concat();
        let huge = [SIGNATURE_2, &[0x21, 0x11, 0xff, 0xff], &vec![0; 1 << 16][..]].concat();
        for wrong in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00"[..],
            b"",
            b"PROXY",
            b"PROXY TCP4 203.0.113.9\r\n",
            b"PROXY TCP4 here 192.0.2.1 1 2\r\n",
            b"PROXY \xff\xff\r\n",
            &endless,
            &huge,
            &version_2(0x21, 0x11, &[1, 2, 3]),
            &version_2(0x31, 0x11, &[0; 12]),
        ] {
            assert!(read(wrong).await.is_err(), "{:?}", &wrong[..wrong.len().min(40)]);
        }
    }
}
