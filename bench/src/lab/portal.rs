//! An administrator's browser, as far as the server sees it: requests of server functions over one connection that is kept.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::run;

const PATIENCE: Duration = Duration::from_secs(10);

/// Who logs in, as `ringfence demo-seed --json` tells it.
pub(super) struct Login {
    email: String,
    password: String,
    totp_secret: String,
    pub(super) enrolment_token: Option<String>,
}

impl Login {
    pub(super) fn read(seeded: &[u8]) -> anyhow::Result<Self> {
        let seeded: Value = serde_json::from_slice(seeded)?;
        let field = |name: &str| seeded.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        Ok(Self {
            email: field("email").context("no e-mail address")?,
            password: field("password").context("no password")?,
            totp_secret: field("totp_secret").context("no TOTP key")?,
            enrolment_token: field("enrolment_token"),
        })
    }
}

/// A session.
pub(super) struct Portal {
    port: u16,
    cookie: String,
    connection: BufReader<TcpStream>,
}

impl Portal {
    /// Logs in with password and one-time code.
    pub(super) async fn log_in(port: u16, login: &Login) -> anyhow::Result<Self> {
        let mut portal = Self { port, cookie: String::new(), connection: connect(port)? };
        portal.ask("account/log_in", &json!({ "email": login.email, "password": login.password }))?;
        // Making the demo may have used up the code of this moment.
        for ahead in ["0", "1"] {
            let code = run("node", &["scripts/one-time-code.mjs", &login.totp_secret, ahead]).await?;
            let done = portal.ask("account/log_in_code", &json!({ "code": code.trim() }));
            if done.is_ok() || ahead == "1" {
                return done.map(|_| portal);
            }
        }
        Ok(portal)
    }

    /// Connects anew: the server closes a connection that says nothing for a while.
    pub(super) fn reconnect(&mut self) -> anyhow::Result<()> {
        self.connection = connect(self.port)?;
        Ok(())
    }

    /// Blocks an address: the ban's id, and when the click left the browser.
    pub(super) fn block(&mut self, address: Ipv4Addr) -> anyhow::Result<(Value, Instant)> {
        let form = json!({ "net": address.to_string(), "duration": "3600", "reason": "a benchmark" });
        let clicked = Instant::now();
        let blocked = self.ask("blocked_ips/block", &json!({ "form": form, "insist": false }))?;
        Ok((blocked.get("id").context("no id")?.clone(), clicked))
    }

    pub(super) fn unblock(&mut self, ban: &Value) -> anyhow::Result<()> {
        self.ask("blocked_ips/unblock", &json!({ "ids": [ban] })).map(drop)
    }

    /// Unblocks all there is.
    pub(super) fn unblock_all(&mut self) -> anyhow::Result<()> {
        self.ask("blocked_ips/unblock_matching", &json!({ "filter": {} })).map(drop)
    }

    fn ask(&mut self, function: &str, body: &Value) -> anyhow::Result<Value> {
        let (port, body) = (self.port, body.to_string());
        let request = format!(
            "POST /api/{function} HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: http://localhost:{port}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/json\r\nAccept: application/json\r\nCookie: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.cookie,
            body.len()
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        let (status, answer) = self.answer()?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status == "200", "{function}: {status} {text}");
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    fn answer(&mut self) -> anyhow::Result<(String, Vec<u8>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).context("no status")?.to_owned();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse()?,
                "transfer-encoding" => chunked = value == "chunked",
                "set-cookie" => value.split(';').next().unwrap_or_default().clone_into(&mut self.cookie),
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let length = usize::from_str_radix(&self.line()?, 16)?;
                self.body(&mut body, length)?;
                self.line()?;
                if length == 0 {
                    break;
                }
            }
        } else {
            self.body(&mut body, length)?;
        }
        Ok((status, body))
    }

    fn body(&mut self, body: &mut Vec<u8>, length: usize) -> anyhow::Result<()> {
        let from = body.len();
        body.resize(from + length, 0);
        Ok(self.connection.read_exact(&mut body[from..])?)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the server closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

fn connect(port: u16) -> anyhow::Result<BufReader<TcpStream>> {
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(connection))
}
