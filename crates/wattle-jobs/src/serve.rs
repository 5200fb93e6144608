//! This machine's energy as OpenMetrics, the one job that opens a socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wattle_meter::backend::Subject;
use wattle_meter::export::Exposition;
use wattle_meter::{Factors, Meter};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// Where to serve what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Address and port.
    pub listen: SocketAddr,
    /// Root of the energy counters: `/sys`, or where a container has the host's.
    pub sysfs: PathBuf,
}

/// A client that needs longer than this, from its first byte to its last, may ask again.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_REQUEST: usize = 8192;
/// Clients that are answered at once; one more is sent away.
const MOST_CLIENTS: usize = 16;

/// Serves the page until the process ends; the observer is told its address, and who else can reach it.
///
/// # Errors
/// If the address cannot be listened at.
pub fn serve(options: &ServeOptions, env: &Env, observer: &mut dyn Observer) -> Result<()> {
    let mut config = env.meter_config();
    // Everything that runs here, where processor time must stand in for a counter.
    config.subject = Subject::Tree(1);
    config.roots.sys = options.sysfs.clone();
    let (factors, labels) = (config.factors.clone(), config.labels.clone());
    let listener = TcpListener::bind(options.listen).map_err(|e| JobError::at(options.listen, e))?;
    let address = listener.local_addr().map_err(|e| JobError::at(options.listen, e))?;
    let meter = Meter::start(config);
    observer.note(&format!("http://{address}/metrics"));
    if !address.ip().is_loopback() {
        let reach =
            "this page can be read by whoever reaches this machine on the network, without a password";
        observer.note(&format!("warning: {reach}; 127.0.0.1 is for this machine alone"));
    }
    let page =
        Page { meter: &meter, factors: &factors, labels: &labels, private: address.ip().is_loopback() };
    let clients = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            if let Ok(stream) = stream {
                let served = clients.fetch_add(1, Ordering::Relaxed) < MOST_CLIENTS
                    && std::thread::Builder::new()
                        .spawn_scoped(scope, || {
                            // A client that goes away is no reason to stop.
                            let _ = answer(stream, &page);
                            clients.fetch_sub(1, Ordering::Relaxed);
                        })
                        .is_ok();
                if !served {
                    clients.fetch_sub(1, Ordering::Relaxed);
                }
            }
            if observer.cancelled() {
                break;
            }
        }
    });
    Ok(())
}

/// What is served.
struct Page<'a> {
    meter: &'a Meter,
    factors: &'a Factors,
    labels: &'a BTreeMap<String, String>,
    /// Whether only this machine may read it.
    private: bool,
}

impl Page<'_> {
    fn text(&self) -> String {
        let snapshot = self.meter.snapshot();
        let components = self.meter.components();
        let (elapsed, power) = (snapshot.elapsed, snapshot.power);
        let (factors, labels) = (self.factors, self.labels);
        Exposition { elapsed, components: &components, power, factors, labels }.text()
    }

    /// Status, type of the content, and content.
    fn answer(&self, request: &[u8]) -> (&'static str, &'static str, String) {
        const PLAIN: &str = "text/plain; charset=utf-8";
        if self.private && !is_this_machine(request) {
            return ("421 Misdirected Request", PLAIN, "this page is for this machine alone\n".to_owned());
        }
        match path(request) {
            Some("/metrics") => {
                ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", self.text())
            }
            Some(_) => ("404 Not Found", PLAIN, "the page is /metrics\n".to_owned()),
            None => ("400 Bad Request", PLAIN, "expected GET /metrics\n".to_owned()),
        }
    }
}

fn answer(mut stream: TcpStream, page: &Page<'_>) -> std::io::Result<()> {
    let until = Instant::now() + PATIENCE;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        // Bytes that drip in one by one do not start the wait anew.
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
        if Instant::now() >= until {
            return Ok(());
        }
    }
    let (status, kind, body) = page.answer(&request);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())?;
    stream.flush()
}

/// Whether a request names this machine as its host, or none: a page elsewhere that has its name lead here asks for its own.
fn is_this_machine(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let mut hosts = text.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim().to_ascii_lowercase())
    });
    hosts.all(|host| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// The path that a GET request asks for, without its query.
fn path(request: &[u8]) -> Option<&str> {
    let line = request.split(|&b| b == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (method == "GET" && target.starts_with('/')).then(|| target.split('?').next().unwrap_or(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_has_a_path() {
        assert_eq!(path(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Some("/metrics"));
        for request in
            [&b"POST /metrics HTTP/1.1\r\n"[..], b"GET", b"", b"\xff\xfe /", b"GET metrics HTTP/1.1"]
        {
            assert_eq!(path(request), None);
        }
    }

    #[test]
    fn a_page_elsewhere_cannot_read_through_a_name_that_leads_here() {
        let asks = |host: &str| is_this_machine(format!("GET / HTTP/1.1\r\n{host}\r\n\r\n").as_bytes());
        for host in ["Host: localhost:9877", "host: 127.0.0.1", "Host: [::1]:9877", "Accept: */*"] {
            assert!(asks(host), "{host}");
        }
        for host in ["Host: evil.example", "Host: 10.0.0.1:9877", "Host: localhost.evil.example:80", "Host:"]
        {
            assert!(!asks(host), "{host}");
        }
        assert!(!asks("Host: localhost\r\nHost: evil.example"));
    }
}
